"""Pyodide as the bundle that workerd reads from a folder, made from the files of the npm package ``pyodide``.

workerd downloads its Python runtime from Cloudflare when a Worker needs it. With the compatibility flag
``python_workers_development`` and the option ``--pyodide-bundle-disk-cache-dir`` it reads one from a folder instead,
which is its own way to run bundles that were built on the machine. The glue between JavaScript and WebAssembly is
turned to the functions that workerd's module ``pyodide-internal:builtin_wrappers`` has for it, since a Worker may not
compile WebAssembly or evaluate strings by itself; Cloudflare's own bundle is made in the same way.
"""

from __future__ import annotations

import struct
from pathlib import Path

BUNDLE = "pyodide_dev.capnp.bin"
"""Name of the file that workerd looks for."""

_IMPORTED = (
    "addEventListener, getRandomValues, location, monotonicDateNow, newWasmModule, patchedApplyFunc, "
    "patchedLoadLibData, wasmInstantiate"
)
_NO_EVAL = '(()=>{throw new Error("strings are not evaluated in a Worker")})()'
_TURNED = (
    ("export default _createPyodideModule", "export {_createPyodideModule}", 1),
    ("new WebAssembly.Module(", "newWasmModule(", 4),
    ("WebAssembly.instantiate(", "wasmInstantiate(", 2),
    ("Date.now()", "monotonicDateNow()", None),
    ("crypto.getRandomValues(view)", "getRandomValues(Module,view)", 1),
    ("eval(func)", _NO_EVAL, 2),
    ("eval(data)", _NO_EVAL, 1),
    ("eval(UTF8ToString(ptr))", _NO_EVAL, 3),
    ("Function.prototype.apply.apply(func,[this_,args])", "patchedApplyFunc(API,func,this_,args)", 1),
    ("getMemory(metadata.memorySize", "Module.getMemoryPatched(Module,libName,metadata.memorySize", 1),
    ("var findLibraryFS=(", "var findLibraryFS=Module.findLibraryFS=(", 1),
    (
        "function loadLibData(){if(handle){",
        "function loadLibData(){var given=patchedLoadLibData(Module,libName,flags.rpath);"
        "return flags.loadAsync?Promise.resolve(given):given;if(handle){",
        1,
    ),
    ("import.meta.url", '"file:///pyodide.asm.mjs"', None),
)


def write_bundle(pyodide: Path, folder: Path) -> Path:
    """Write the bundle of an npm package into a folder, and return the folder.

    Args:
        pyodide: Folder of the package.
        folder: Where to write; created if it does not exist.
    """
    modules = [
        ("pyodideRuntime-internal:pyodide.asm", 0, turned((pyodide / "pyodide.asm.mjs").read_text("utf-8")).encode()),
        ("pyodideRuntime-internal:pyodide.asm.wasm", 1, (pyodide / "pyodide.asm.wasm").read_bytes()),
        ("pyodideRuntime-internal:python_stdlib.zip", 2, (pyodide / "python_stdlib.zip").read_bytes()),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BUNDLE).write_bytes(message(modules))
    return folder


def turned(glue: str) -> str:
    """Return Pyodide's glue, turned to the runtime's own functions.

    Raises:
        ValueError: It is not the version that this was written for.
    """
    for old, new, times in _TURNED:
        found = glue.count(old)
        if not found or times not in (None, found):
            raise ValueError(f"this version of pyodide.asm.mjs has {old!r} {found} times instead of {times}")
        glue = glue.replace(old, new)
    return f'import {{ {_IMPORTED} }} from "pyodide-internal:builtin_wrappers";\n{glue}'


def message(modules: list[tuple[str, int, bytes]]) -> bytes:
    """Return a Cap'n Proto message with a ``Bundle`` of modules, each a name, a kind and a content.

    The schema is that of ``workerd/jsg/modules.capnp``: a Bundle has a list of Modules. A Module has one word of data
    (its type, which is 2 for internal, and which kind of content it has: 0 source, 1 WebAssembly, 2 data) and four
    pointers (name, content, declarations, cache). The encoding is described at capnproto.org/encoding.html.
    """
    words: list[bytes] = []
    size = 1 + 1 + 1 + 5 * len(modules)  # words: pointer to the root, its pointer, the tag of the list, the modules

    def append(content: bytes) -> tuple[int, int]:
        """Put bytes at the end, and return where they are and how many."""
        nonlocal size
        padded = content + bytes(-len(content) % 8)
        words.append(padded)
        at, size = size, size + len(padded) // 8
        return at, len(content)

    def pointer_to_bytes(here: int, at: int, count: int) -> bytes:
        return struct.pack("<II", (at - here - 1) << 2 | 1, count << 3 | 2)

    head = [
        struct.pack("<iHH", 0 << 2, 0, 1),  # a struct right behind, without data and with one pointer
        struct.pack("<II", 0 << 2 | 1, 5 * len(modules) << 3 | 7),  # a list of structs right behind
        struct.pack("<IHH", len(modules) << 2, 1, 4),  # its tag: so many, each of one word of data and four pointers
    ]
    for index, (name, kind, content) in enumerate(modules):
        here = 3 + 5 * index
        head.append(struct.pack("<HHI", 2, kind, 0))
        head.append(pointer_to_bytes(here + 1, *append(name.encode() + b"\0")))
        head.append(pointer_to_bytes(here + 2, *append(content)))
        head.append(bytes(16))
    body = b"".join(head) + b"".join(words)
    return struct.pack("<II", 0, len(body) // 8) + body
