//! The surroundings of one scenario: its store, its servers, its browsers and the name of its user.
use crate::browser::{Browser, Script};
use crate::driver::Driver;
use crate::shop::Shop;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use tempfile::TempDir;

/// The top of the workspace.
pub(crate) const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The environment variable with the stores that the scenarios run on: URLs, separated by spaces.
pub(crate) const STORES: &str = "SESSILE_BROWSER_STORES";
/// The stores without that variable. In a URL, `{dir}` stands for a new directory of the scenario. A store without it is
/// shared by all scenarios: each has users of its own.
const DEFAULT_STORES: &str = "file:{dir}/sessions";

/// The URLs of the stores.
pub(crate) fn stores() -> Vec<String> {
    let stores = std::env::var(STORES).unwrap_or_else(|_| DEFAULT_STORES.into());
    stores.split_whitespace().map(str::to_owned).collect()
}

/// Where screenshots are kept.
///
/// # Panics
///
/// The directory cannot be made.
pub(crate) fn pictures() -> PathBuf {
    let dir = Path::new(WORKSPACE).join("target/browser");
    fs::create_dir_all(&dir).expect("the build directory can be written");
    dir
}

/// The surroundings of one scenario.
pub(crate) struct Stage<'a> {
    name: &'a str,
    driver: &'a Driver,
    program: &'a Path,
    store: String,
    dir: TempDir,
}

impl<'a> Stage<'a> {
    /// # Panics
    ///
    /// No directory can be made in `scratch`.
    pub(crate) fn new(
        name: &'a str,
        driver: &'a Driver,
        program: &'a Path,
        store: &str,
        scratch: &Path,
    ) -> Self {
        let dir = TempDir::new_in(scratch).expect("the directory of the test can be written");
        let path = dir.path().to_str().expect("the test has made it");
        Self { name, driver, program, store: store.replace("{dir}", path), dir }
    }

    /// A shop on any free port, with further arguments.
    #[track_caller]
    pub(crate) fn shop(&self, args: &[&str]) -> Shop {
        self.shop_on(0, args)
    }

    /// A shop on this port.
    #[track_caller]
    pub(crate) fn shop_on(&self, port: u16, args: &[&str]) -> Shop {
        let port = port.to_string();
        let args = [&["--port", &port], args].concat();
        Shop::start(self.program, &self.store, &args, &self.log())
    }

    /// A browser with a profile of its own.
    #[track_caller]
    pub(crate) fn browser(&self) -> Browser {
        Browser::start(self.driver, self.dir.path(), self.name, Script::On)
    }

    /// A browser that runs no script of a page.
    #[track_caller]
    pub(crate) fn browser_without_script(&self) -> Browser {
        Browser::start(self.driver, self.dir.path(), self.name, Script::Off)
    }

    /// A name of a user that no other scenario and no earlier run on the same store has.
    pub(crate) fn user(&self) -> String {
        let unique = self.dir.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        format!("Ada {}", unique.trim_start_matches(".tmp"))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("shop.log")
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if thread::panicking()
            && let Ok(log) = fs::read_to_string(self.log())
            && !log.is_empty()
        {
            eprintln!("the shops of {} said:\n{log}", self.name);
        }
    }
}
