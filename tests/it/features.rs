//! Features of our dependencies belong to the whole program: any crate of it may switch them on. A program that has
//! done so is built and run here, with the versions of our lock file and without the network.
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn numbers_are_kept_or_refused_whatever_serde_json_can_do() {
    // Without the first two, `serde_json` itself makes a float of a number in raw JSON.
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
    // Beside the package: the build that runs this test may hold the lock of its own directory.
    let ran = cargo.env("CARGO_TARGET_DIR", package.join("target")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out == "all is well\n", "{out}{err}");
}
