/// The calls of the s3seg edge that an app needs.
library;

import 'dart:async';
import 'dart:convert';
import 'dart:math';
import 'dart:typed_data';

import 'package:http/http.dart' as http;

/// An error of the service: [code] is stable, [message] is for people.
class S3segException implements Exception {
  S3segException(this.code, this.message);
  final String code;
  final String message;

  @override
  String toString() => message;
}

/// What was found in a picture.
class Result {
  Result({required this.labels, required this.confidence, required this.mask});

  /// The prompts that were found.
  final List<String> labels;

  /// The highest score, from 0 to 1.
  final double confidence;

  /// A PNG in the size of the picture: 0 is background, k the k-th instance.
  final Uint8List mask;
}

/// A client of one service, for one user.
class S3seg {
  S3seg(this.url, this.token, {http.Client? client}) : _http = client ?? http.Client();

  final Uri url;

  /// Returns the access token; asked for each request, since it is renewed now and then.
  final String Function() token;
  final http.Client _http;

  /// Find what [prompts] name in a JPEG, PNG or WebP of at most 10 MB.
  ///
  /// With [tile], look also into overlapping tiles of so many pixels a side (32 or more), for things that are small or
  /// many. Each tile takes as long as a whole picture; the price is the same.
  Future<Result> segment(Uint8List picture, List<String> prompts, {int? tile}) async {
    final upload = http.MultipartRequest('POST', url.resolve('/api/v1/upload'))
      ..headers.addAll(_headers())
      ..files.add(http.MultipartFile.fromBytes('file', picture, filename: 'picture'));
    final image = _data(await http.Response.fromStream(await _http.send(upload)));
    final body = jsonEncode({
      'image_url': image['image_url'],
      'text_prompts': prompts,
      if (tile != null) 'tile': tile,
    });
    final key = _newKey(); // the same for each repeat: a lost answer does not cost twice
    final task = await _retried(() => _http.post(url.resolve('/api/v1/segment'),
        headers: _headers({'Content-Type': 'application/json', 'Idempotency-Key': key}), body: body));
    final id = task['task_id'] as String;
    var pause = const Duration(milliseconds: 200);
    while (true) {
      final state = await _retried(() => _http.get(url.resolve('/api/v1/tasks/$id'), headers: _headers()));
      if (state['status'] == 'done') break;
      if (state['status'] == 'error') throw S3segException('INFERENCE_FAILED', '${state['error_message']}');
      await Future<void>.delayed(pause);
      pause = Duration(milliseconds: min(2000, pause.inMilliseconds * 3 ~/ 2));
    }
    final result = await _retried(() => _http.get(url.resolve('/api/v1/results/$id'), headers: _headers()));
    final mask = await _http.get(Uri.parse(result['mask_image_url'] as String));
    return Result(
      labels: (result['labels'] as List<dynamic>).cast<String>(),
      confidence: ((result['metadata'] as Map<String, dynamic>)['confidence'] as num).toDouble(),
      mask: mask.bodyBytes,
    );
  }

  Map<String, String> _headers([Map<String, String> more = const {}]) => {'Authorization': 'Bearer ${token()}', ...more};

  /// Send a request that may be repeated, up to four times if the service is busy or does not answer.
  Future<Map<String, dynamic>> _retried(Future<http.Response> Function() send) async {
    for (var attempt = 1;; attempt++) {
      try {
        final answer = await send().timeout(const Duration(seconds: 30));
        if (attempt == 4 || (answer.statusCode != 429 && answer.statusCode != 503)) return _data(answer);
        await Future<void>.delayed(Duration(seconds: int.tryParse(answer.headers['retry-after'] ?? '') ?? 1));
      } on TimeoutException {
        if (attempt == 4) rethrow;
      } on http.ClientException {
        if (attempt == 4) rethrow;
        await Future<void>.delayed(Duration(milliseconds: 300 * attempt));
      }
    }
  }

  static Map<String, dynamic> _data(http.Response answer) {
    try {
      final envelope = jsonDecode(answer.body) as Map<String, dynamic>;
      if (envelope['data'] case final Map<String, dynamic> data) return data;
      final error = envelope['error'] as Map<String, dynamic>;
      throw S3segException(error['code'] as String, error['message'] as String);
    } on FormatException {
      throw S3segException('UNAVAILABLE', 'the service answered with status ${answer.statusCode}');
    }
  }

  static String _newKey() {
    final random = Random.secure();
    return List.generate(16, (_) => random.nextInt(256).toRadixString(16).padLeft(2, '0')).join();
  }
}
