//! Linker options that make the program of ramdisk 1 small.
//!
//! Invariant: they change the content of the file, never the program's behaviour. Other targets are not affected.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        for option in
            ["--strip-all", "--icf=all", "--pack-dyn-relocs=relr", "-T", &format!("{directory}/link.ld")]
        {
            println!("cargo::rustc-link-arg-bins={option}");
        }
    }
}
