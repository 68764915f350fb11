//! What a file is that is no module, as far as its first bytes tell, and what to do about it.

/// What a module begins with.
pub(super) const HEADER: [u8; 8] = *b"\0asm\x01\0\0\0";

/// For a file that ends too early.
pub(super) const CUT_OFF: &str = "the file is cut off: it ends in the middle of a WebAssembly module (an unfinished copy or download?)";

const TEXT: &str = "the file is WebAssembly text; compile it to a binary first (wat2wasm)";

const TAR: &str = "the file is a tar archive; unpack it and load the module inside it (in images of filters: plugin.wasm)";

/// Kinds of files by what they begin with.
const KINDS: &[(&[u8], &str)] = &[
    (
        b"\x1f\x8b",
        "the file is compressed with gzip; decompress it first (gunzip), and unpack it if it is an archive",
    ),
    (b"\x28\xb5\x2f\xfd", "the file is compressed with zstd; decompress it first (unzstd)"),
    (b"\xfd7zXZ\0", "the file is compressed with xz; decompress it first (unxz)"),
    (b"BZh", "the file is compressed with bzip2; decompress it first (bunzip2)"),
    (b"PK\x03\x04", "the file is a zip archive; unpack it and load the module inside it"),
    (b"!<arch>\n", "the file is a static library; link it to a module first (wasm-ld)"),
    (
        b"BC\xc0\xde",
        "the file is LLVM bitcode; compile and link it to a module first (clang --target=wasm32-wasip1)",
    ),
    (
        b"MZ",
        "the file is a program for Windows and no WebAssembly module; build the filter for wasm32",
    ),
    (
        b"\xcf\xfa\xed\xfe",
        "the file is a program for macOS and no WebAssembly module; build the filter for wasm32",
    ),
    (
        b"version https://git-lfs.github.com/spec/",
        "the file is a pointer of Git LFS and not the module itself; fetch it with `git lfs pull`",
    ),
    (b"AGFzbQ", "the file is a module in base64; decode it first (base64 -d)"),
];

/// Kinds of text by what they begin with, white space left out, in small letters.
const TEXTS: &[(&[u8], &str)] = &[
    (b"(", TEXT),
    (b";;", TEXT),
    (
        b"<?xml",
        "the file is an XML document (an error page in place of the module?); download the module again",
    ),
    (
        b"<",
        "the file is an HTML page (of a login, or of an error, in place of the module?); download the module again",
    ),
    (
        b"{",
        "the file is JSON (an error page in place of the module, or the manifest of an image?); download the module again",
    ),
    (b"#!", "the file is a script and no WebAssembly module; load the .wasm file"),
];

/// Where a tar archive says that it is one.
const TAR_AT: usize = 257;

/// Says what is wrong with a file that does not begin as a module.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    match bytes {
        [] => return Err("the file is empty"),
        _ if bytes.starts_with(&HEADER) => return Ok(()),
        [b'\0', b'a', b's', b'm', _, 0, 1, 0, ..] => {
            return Err(
                "the file is a WebAssembly component; build the filter as a core module (for Rust: wasm32-wasip1)",
            );
        }
        _ if HEADER.starts_with(bytes) => return Err(CUT_OFF),
        [b'\0', b'a', b's', b'm', ..] => {
            return Err("the file is of a version of WebAssembly that is not supported");
        }
        _ => {}
    }
    if bytes.get(TAR_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return Err(TAR);
    }
    if let Some((_, what)) = KINDS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err(what);
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let begins = |magic: &[u8]| {
        text.get(..magic.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(magic))
    };
    if let Some((_, what)) = TEXTS.iter().find(|(magic, _)| begins(magic)) {
        return Err(what);
    }
    Err(if bytes.iter().all(|&byte| byte == 0) {
        "the file holds zeros only (an unfinished copy or download?)"
    } else {
        "not a WebAssembly module: the file does not begin with \"\\0asm\""
    })
}
