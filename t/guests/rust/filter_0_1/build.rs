fn main() {
    // This old SDK declares its host functions without saying that they are imports.
    println!("cargo:rustc-link-arg-cdylib=--allow-undefined");
}
