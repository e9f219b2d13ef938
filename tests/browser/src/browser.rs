//! A browser with a profile of its own: the calls of the driver, without `async`, and with the waits that pages need. A
//! call that fails, or gets no answer for [`PATIENCE`], fails the test.
use crate::driver::Driver;
use crate::stage::pictures;
use crate::waiting::{PATIENCE, eventually, wait_for};
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::cookies::Cookie;
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::cell::Cell;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::thread;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// The flags of each browser: it shows no window, works as root, calls no server but ours, and takes no width from pages for
/// scroll bars.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,900",
];

/// Whether the scripts of pages run. The calls of the driver work without them, too.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Script {
    On,
    Off,
}

/// A running browser. It is closed when this value is dropped.
pub(crate) struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    scenario: String,
    /// The mark of the page that was left last.
    left: Cell<u64>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with a new profile below `dir`.
    #[track_caller]
    pub(crate) fn start(driver: &Driver, dir: &Path, scenario: &str, script: Script) -> Self {
        let profile = TempDir::with_prefix_in("profile-", dir).expect("the directory is the test's own");
        let user_data = format!("--user-data-dir={}", profile.path().display());
        let blocked = if script == Script::Off { 2 } else { 1 };
        let options = json!({
            "binary": driver.browser,
            "args": FLAGS.iter().copied().chain([user_data.as_str()]).collect::<Vec<_>>(),
            "prefs": { "profile.managed_default_content_settings.javascript": blocked },
        });
        let wanted = Capabilities::from_iter([("goog:chromeOptions".to_owned(), options)]);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime without threads");
        let started = runtime.block_on(async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            timeout(PATIENCE, builder.capabilities(wanted).connect(&driver.url)).await
        });
        let client = started.expect("the browser starts in time").expect("the browser starts");
        Self {
            runtime,
            client: Some(client),
            scenario: scenario.to_owned(),
            left: Cell::new(0),
            _profile: profile,
        }
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("it is there until the drop")
    }

    /// The answer of the driver to a call.
    fn answer<T>(&self, call: impl Future<Output = Result<T, CmdError>>) -> Result<T, CmdError> {
        self.runtime.block_on(async { timeout(PATIENCE, call).await.expect("the driver answers in time") })
    }

    #[track_caller]
    fn call<T>(&self, what: impl Display, call: impl Future<Output = Result<T, CmdError>>) -> T {
        self.answer(call).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Opens an address, and waits until the page is loaded.
    #[track_caller]
    pub(crate) fn goto(&self, url: &str) {
        self.leave(url, || self.call(url, self.client().goto(url)));
    }

    #[track_caller]
    pub(crate) fn reload(&self) {
        self.leave("reload", || self.call("reload", self.client().refresh()));
    }

    /// Presses the back button.
    #[track_caller]
    pub(crate) fn back(&self) {
        self.leave("back", || self.call("back", self.client().back()));
    }

    #[track_caller]
    pub(crate) fn url(&self) -> String {
        self.call("the address", self.client().current_url()).to_string()
    }

    /// The elements that a selector matches now.
    #[track_caller]
    fn find_all(&self, css: &str) -> Vec<Element> {
        self.call(css, self.client().find_all(Locator::Css(css)))
    }

    #[track_caller]
    pub(crate) fn has(&self, css: &str) -> bool {
        !self.find_all(css).is_empty()
    }

    /// Waits until the selector matches an element.
    #[track_caller]
    pub(crate) fn see(&self, css: &str) {
        eventually(css, || self.has(css));
    }

    /// The text of each shown element that a selector matches now, as the page shows it.
    #[track_caller]
    pub(crate) fn texts(&self, css: &str) -> Vec<String> {
        let script = "const all = [...document.querySelectorAll(arguments[0])];
                      return all.filter(e => e.checkVisibility()).map(e => e.innerText.trim())";
        serde_json::from_value(self.script(script, &[css])).expect("a list of texts")
    }

    /// An attribute of each element that a selector matches now.
    #[track_caller]
    pub(crate) fn attributes(&self, css: &str, name: &str) -> Vec<String> {
        let script =
            "return [...document.querySelectorAll(arguments[0])].map(e => e.getAttribute(arguments[1]))";
        serde_json::from_value(self.script(script, &[css, name])).expect("a list of texts")
    }

    /// Writes a text into a field, as a visitor does.
    #[track_caller]
    pub(crate) fn fill(&self, css: &str, text: &str) {
        let field = self.call(css, self.client().find(Locator::Css(css)));
        self.call(css, field.clear());
        self.call(css, field.send_keys(text));
    }

    /// Clicks an element, and waits until the page that follows is loaded.
    #[track_caller]
    pub(crate) fn follow(&self, css: &str) {
        let element = self.call(css, self.client().find(Locator::Css(css)));
        self.leave(css, || self.call(css, element.click()));
    }

    /// Fills in a form, presses its button, and waits until the page that follows is loaded.
    #[track_caller]
    pub(crate) fn submit(&self, form: &str, fields: &[(&str, &str)]) {
        for (name, text) in fields {
            self.fill(&format!("{form} [name='{name}']"), text);
        }
        self.follow(&format!("{form} button"));
    }

    /// Does something that leads to another page, and waits until that is loaded. (On a slow machine the driver may
    /// return before that.)
    #[track_caller]
    pub(crate) fn leave(&self, what: &str, act: impl FnOnce()) {
        self.left.set(self.left.get() + 1);
        self.script("window.left = arguments[0]", &[&self.left.get().to_string()]);
        act();
        self.await_load(what);
    }

    /// Waits until another page than that of the last [`leave`](Self::leave) is loaded.
    #[track_caller]
    fn await_load(&self, what: &str) {
        let left = json!(self.left.get().to_string());
        let is_loaded = "return window.left !== arguments[0] && document.readyState === 'complete' \
                         && location.href !== 'about:blank'";
        // Between two pages there is none in which a script could run.
        eventually(what, || {
            let answer = self.answer(self.client().execute(is_loaded, vec![left.clone()]));
            answer.is_ok_and(|is_loaded| is_loaded == true)
        });
    }

    /// Runs a script of the test in the page; the policy of the page does not apply to it.
    #[track_caller]
    pub(crate) fn script(&self, script: &str, arguments: &[&str]) -> Value {
        let arguments = arguments.iter().map(|argument| json!(argument)).collect();
        self.call("a script of the test", self.client().execute(script, arguments))
    }

    /// Writes a text into the element that has the focus.
    #[track_caller]
    pub(crate) fn type_text(&self, text: &str) {
        let focused = self.call("the focus", self.client().active_element());
        self.call("type", focused.send_keys(text));
    }

    /// Presses a key.
    #[track_caller]
    pub(crate) fn press(&self, key: Key) {
        let value = key.into();
        let keys =
            KeyActions::new("keys".into()).then(KeyAction::Down { value }).then(KeyAction::Up { value });
        self.call("a key", self.client().perform_actions(keys));
    }

    /// Lets no request of the pages through whose address matches the pattern.
    #[track_caller]
    pub(crate) fn block(&self, pattern: &str) {
        self.chromium("Network.enable", json!({}));
        self.chromium("Network.setBlockedURLs", json!({ "urls": [pattern] }));
    }

    /// A command of Chromium's own protocol.
    #[track_caller]
    pub(crate) fn chromium(&self, command: &'static str, parameters: Value) {
        self.call(command, self.client().issue_cmd(ChromiumCommand { command, parameters }));
    }

    /// Sets the size of the page, in CSS pixels.
    #[track_caller]
    pub(crate) fn resize(&self, width: u64, height: u64) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.chromium("Emulation.setDeviceMetricsOverride", size);
    }

    /// Prefers light or dark pages.
    #[track_caller]
    pub(crate) fn prefer(&self, scheme: &str) {
        let preferred = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.chromium("Emulation.setEmulatedMedia", preferred);
    }

    /// Keeps a picture of the page.
    #[track_caller]
    pub(crate) fn picture(&self, name: &str) {
        let bytes = self.call("a picture", self.client().screenshot());
        fs::write(pictures().join(format!("{name}.png")), bytes).expect("the build directory can be written");
    }
}

/// Tabs.
impl Browser {
    /// The tab in which the calls work.
    #[track_caller]
    pub(crate) fn tab(&self) -> WindowHandle {
        self.call("the tab", self.client().window())
    }

    /// All tabs.
    #[track_caller]
    pub(crate) fn tabs(&self) -> Vec<WindowHandle> {
        self.call("the tabs", self.client().windows())
    }

    /// Opens a tab, and works in it.
    #[track_caller]
    pub(crate) fn new_tab(&self) -> WindowHandle {
        let opened = self.call("a new tab", self.client().new_window(true));
        self.switch_to(&opened.handle);
        opened.handle
    }

    #[track_caller]
    pub(crate) fn switch_to(&self, tab: &WindowHandle) {
        self.call("another tab", self.client().switch_to_window(tab.clone()));
    }

    #[track_caller]
    pub(crate) fn close_tab(&self) {
        self.call("close the tab", self.client().close_window());
    }

    /// Submits forms of the page at the same time, each into a tab of its own, and waits until all answers are loaded.
    /// Returns those tabs; works in the tab of the forms afterwards.
    #[track_caller]
    pub(crate) fn submit_at_once(&self, forms: &[&str]) -> Vec<WindowHandle> {
        let (own, before) = (self.tab(), self.tabs());
        let script = "[...arguments].forEach(css => { \
                        const form = document.querySelector(css); form.target = '_blank'; form.submit() })";
        self.script(script, forms);
        let opened = wait_for("a tab for each form", || {
            let opened: Vec<_> = self.tabs().into_iter().filter(|tab| !before.contains(tab)).collect();
            (opened.len() == forms.len()).then_some(opened)
        });
        for tab in &opened {
            self.switch_to(tab);
            self.await_load("the answer to a form");
        }
        self.switch_to(&own);
        opened
    }
}

/// Cookies.
impl Browser {
    /// All cookies of the page, also those that its scripts cannot read.
    #[track_caller]
    pub(crate) fn cookies(&self) -> Vec<Cookie<'static>> {
        self.call("the cookies", self.client().get_all_cookies())
    }

    /// Replaces the cookies of the page.
    #[track_caller]
    pub(crate) fn set_cookies(&self, cookies: &[Cookie<'static>]) {
        self.call("remove the cookies", self.client().delete_all_cookies());
        for cookie in cookies {
            self.call("plant a cookie", self.client().add_cookie(cookie.clone()));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        self.runtime.block_on(async {
            if thread::panicking() {
                let address = timeout(PATIENCE, client.current_url()).await;
                let picture = timeout(PATIENCE, client.screenshot()).await;
                if let (Ok(Ok(address)), Ok(Ok(picture))) = (address, picture) {
                    let path = pictures().join(format!(
                        "failed-{}-{}.png",
                        self.scenario,
                        address.port().unwrap_or(0)
                    ));
                    // The failure itself is reported: this only helps to understand it.
                    let _ = fs::write(&path, picture);
                    eprintln!("a browser of {} was at {address}: {}", self.scenario, path.display());
                }
            }
            // A browser that does not close is killed with its driver.
            let _ = timeout(PATIENCE, client.close()).await;
        });
    }
}

/// A command of Chromium's own protocol, through the driver.
#[derive(Debug)]
struct ChromiumCommand {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for ChromiumCommand {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "cmd": self.command, "params": self.parameters }).to_string()))
    }
}
