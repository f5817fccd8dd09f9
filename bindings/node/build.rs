//! Link arguments of a Node addon.

fn main() {
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        // Node-API's symbols are those of the process that loads the addon.
        Ok("macos") => println!("cargo:rustc-cdylib-link-arg=-Wl,-undefined,dynamic_lookup"),
        // A worker that ends unloads its addons; our threads may still be on their way out of this one.
        Ok("linux") => println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete"),
        _ => {}
    }
}
