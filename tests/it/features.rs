//! If any crate of a program switches a feature of a dependency on, it is on for the whole program. This test builds
//! and runs a program in which such features are on, with the versions of our lock file and without the network.
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn numbers_are_kept_or_refused_whatever_serde_json_can_do() {
    // Without the first two features, `serde_json` itself turns a number in raw JSON into a float.
    for features in [r#""arbitrary_precision", "preserve_order", "raw_value""#, r#""raw_value""#] {
        check(features);
    }
}

#[track_caller]
fn check(features: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("features");
    fs::create_dir_all(package.join("src")).unwrap();
    let manifest = format!(
        r#"[package]
name = "program"
version = "0.0.0"
edition = "2024"

[dependencies]
serde = {{ version = "1", features = ["derive"] }}
serde_json = {{ version = "1", features = [{features}] }}
sessile = {{ path = '{}' }}

[workspace]
"#,
        root.display(),
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::write(package.join("src/main.rs"), include_str!("features/program.rs")).unwrap();
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--offline", "--quiet"]).current_dir(&package);
    // The target directory is in the package: the build that runs this test may have the lock of its own target
    // directory.
    let ran = cargo.env("CARGO_TARGET_DIR", package.join("target")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out == "all is well\n", "{out}{err}");
}
