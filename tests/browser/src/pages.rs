//! The pages of the shop, by the marks in their HTML on which tests rely.
use crate::browser::Browser;
use crate::shop::Shop;

/// Forms.
pub(crate) const LOGIN: &str = "form[action='/login']";
pub(crate) const LOGOUT: &str = "form[action='/logout']";
pub(crate) const ADD: &str = "form[action='/cart']";
pub(crate) const CLOSE: &str = "form[action='/account/close']";
pub(crate) const CONFIRM: &str = "form[action='/confirm']";
pub(crate) const END_OTHERS: &str = "form[action='/devices/end-others']";

/// A device in the list.
#[derive(Debug, PartialEq)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) is_this: bool,
}

impl Browser {
    /// Opens the shop's first page.
    #[track_caller]
    pub(crate) fn open(&self, shop: &Shop) {
        self.goto(&shop.url("/"));
    }

    /// Opens the shop's first page, and logs in there.
    #[track_caller]
    pub(crate) fn log_in(&self, shop: &Shop, user: &str) {
        self.open(shop);
        self.submit(LOGIN, &[("user", user)]);
        self.check_user(Some(user));
    }

    /// Asserts that the page is that of this user, or of a guest.
    #[track_caller]
    pub(crate) fn check_user(&self, user: Option<&str>) {
        assert_eq!(self.user().as_deref(), user, "the user of the page at {}", self.url());
    }

    /// The user that the page names; `None` for a guest.
    #[track_caller]
    pub(crate) fn user(&self) -> Option<String> {
        self.texts("#user").pop()
    }

    /// Asserts which page of the shop this is.
    #[track_caller]
    pub(crate) fn check_page(&self, name: &str) {
        assert_eq!(self.attributes("main", "data-page"), [name], "the page at {}", self.url());
    }

    /// Asserts that this is an error page, and follows its way back to the shop.
    #[track_caller]
    pub(crate) fn go_back_from_error(&self) {
        self.check_page("error");
        self.follow("main a[href='/']");
        self.check_page("shop");
    }

    /// Puts an item into the cart.
    #[track_caller]
    pub(crate) fn add(&self, item: &str) {
        self.submit(ADD, &[("item", item)]);
    }

    /// The items in the cart.
    #[track_caller]
    pub(crate) fn cart(&self) -> Vec<String> {
        let items = self.texts("ul#cart li").into_iter();
        // The button is below the name.
        items.map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// The messages that the page shows once.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<String> {
        self.texts("#flash p")
    }

    /// Opens the list of devices by its link, and reads it.
    #[track_caller]
    pub(crate) fn devices(&self) -> Vec<Device> {
        self.follow("a[href='/devices']");
        self.listed()
    }

    /// The devices that the page lists.
    #[track_caller]
    pub(crate) fn listed(&self) -> Vec<Device> {
        self.check_page("devices");
        let this = self.attributes("li.device.this", "data-id");
        let ids = self.attributes("li.device", "data-id").into_iter();
        ids.map(|id| Device { is_this: this.contains(&id), id }).collect()
    }

    /// The public id of the session, as the page shows it.
    #[track_caller]
    pub(crate) fn session_id(&self) -> String {
        self.attributes("#session-id", "data-id").concat()
    }

    /// Waits until the live line has this state.
    #[track_caller]
    pub(crate) fn await_live(&self, state: &str) {
        self.see(&format!("#live[data-state='{state}']"));
    }
}
