//! How the program of ramdisk 1 is linked: small.
//!
//! Its law: it changes what is in the file, never what the program does. It leaves other targets alone.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        for word in ["--strip-all", "--icf=all", "--pack-dyn-relocs=relr", "-T", &format!("{folder}/link.ld")]
        {
            println!("cargo::rustc-link-arg-bins={word}");
        }
    }
}
