//! Link flags of the shared library.

fn main() {
    // A reload closes nginx's Lua VM and with it the library; the code and the counted forks must outlive that.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
