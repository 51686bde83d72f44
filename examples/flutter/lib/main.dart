// One screen: choose a picture, name what to find, see its masks.
//   flutter run --dart-define=S3SEG_URL=http://10.0.2.2:8000 --dart-define=S3SEG_TOKEN=...

import 'dart:typed_data';
import 'dart:ui' as ui;

import 'package:flutter/material.dart';
import 'package:image_picker/image_picker.dart';

import 's3seg.dart';

const _url = String.fromEnvironment('S3SEG_URL', defaultValue: 'http://127.0.0.1:8000');
const _token = String.fromEnvironment('S3SEG_TOKEN');
const _tile = 1000; // pixels; of things that are smaller than 50, little is found
const _colours = [0xFFE6194B, 0xFF3CB44B, 0xFF0082C8, 0xFFF58230, 0xFF911EB4, 0xFF46F0F0, 0xFFF032E6];

void main() => runApp(MaterialApp(title: 's3seg', home: SegmentScreen(S3seg(Uri.parse(_url), () => _token))));

class SegmentScreen extends StatefulWidget {
  const SegmentScreen(this.service, {super.key});
  final S3seg service;

  @override
  State<SegmentScreen> createState() => _SegmentScreenState();
}

class _SegmentScreenState extends State<SegmentScreen> {
  final _prompts = TextEditingController(text: 'tree, sun');
  Uint8List? _picture;
  ui.Image? _masks;
  String _said = 'Choose a picture.';
  bool _closely = false;
  bool _busy = false;

  Future<void> _choose() async {
    final file = await ImagePicker().pickImage(source: ImageSource.gallery, maxWidth: 4096, maxHeight: 4096);
    if (file == null) return;
    final bytes = await file.readAsBytes();
    setState(() {
      _picture = bytes;
      _masks = null;
      _said = 'Name what to find, several things with commas.';
    });
  }

  Future<void> _find() async {
    final prompts = [for (final text in _prompts.text.split(',')) if (text.trim().isNotEmpty) text.trim()];
    setState(() => _busy = true);
    try {
      final result = await widget.service.segment(_picture!, prompts, tile: _closely ? _tile : null);
      final masks = await _coloured(result.mask);
      setState(() {
        _masks = masks;
        _said = result.labels.isEmpty ? 'Nothing found.' : 'Found ${result.labels.join(', ')}.';
      });
    } on Exception catch (error) {
      setState(() => _said = '$error');
    } finally {
      setState(() => _busy = false);
    }
  }

  /// Turn a mask, in which each pixel is the number of an instance, into half-transparent colours.
  static Future<ui.Image> _coloured(Uint8List png) async {
    final frame = await (await ui.instantiateImageCodec(png)).getNextFrame();
    final pixels = (await frame.image.toByteData())!;
    for (var at = 0; at < pixels.lengthInBytes; at += 4) {
      final instance = pixels.getUint8(at); // grey: red, green and blue are the same
      final colour = instance == 0 ? 0 : _colours[(instance - 1) % _colours.length];
      pixels.setUint32(at, ((colour & 0xFFFFFF) << 8) | (instance == 0 ? 0 : 0x80));
    }
    final buffer = await ui.ImmutableBuffer.fromUint8List(pixels.buffer.asUint8List());
    final descriptor = ui.ImageDescriptor.raw(buffer,
        width: frame.image.width, height: frame.image.height, pixelFormat: ui.PixelFormat.rgba8888);
    return (await (await descriptor.instantiateCodec()).getNextFrame()).image;
  }

  @override
  Widget build(BuildContext context) {
    final picture = _picture;
    return Scaffold(
      appBar: AppBar(title: const Text('s3seg')),
      body: Padding(
        padding: const EdgeInsets.all(16),
        child: Column(children: [
          Expanded(
            child: picture == null
                ? const Center(child: Icon(Icons.image_outlined, size: 96))
                : Stack(fit: StackFit.expand, children: [
                    Image.memory(picture, fit: BoxFit.contain),
                    if (_masks != null) RawImage(image: _masks, fit: BoxFit.contain),
                  ]),
          ),
          if (_busy) const LinearProgressIndicator(),
          Semantics(liveRegion: true, child: Padding(padding: const EdgeInsets.all(8), child: Text(_said))),
          TextField(controller: _prompts, decoration: const InputDecoration(labelText: 'What to find')),
          SwitchListTile(
            title: const Text('Look closely'),
            subtitle: const Text('For things that are small in the picture; takes longer'),
            value: _closely,
            onChanged: _busy ? null : (value) => setState(() => _closely = value),
          ),
          Row(mainAxisAlignment: MainAxisAlignment.spaceEvenly, children: [
            OutlinedButton(onPressed: _busy ? null : _choose, child: const Text('Choose a picture')),
            FilledButton(onPressed: _busy || picture == null ? null : _find, child: const Text('Find')),
          ]),
        ]),
      ),
    );
  }
}
