//! The cart: an entry of the session.
use serde::{Deserialize, Serialize};
use sessile::Session;

/// The most items of a cart.
pub(crate) const ITEMS_MAX: usize = 50;
/// The name of the session's entry.
const ENTRY: &str = "cart";

/// The items, each with a number of its own, so that a form which is sent twice removes its item once.
#[derive(Clone, Default, Deserialize, Serialize)]
pub(crate) struct Cart {
    next: u32,
    pub(crate) items: Vec<Item>,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Item {
    pub(crate) number: u32,
    pub(crate) name: String,
}

impl Cart {
    pub(crate) fn of(session: &Session) -> sessile::Result<Self> {
        Ok(session.get(ENTRY)?.unwrap_or_default())
    }

    /// Adds an item, unless the cart is full. Returns whether it was added.
    ///
    /// The function runs again on the stored cart when the session is saved: of two tabs that add at the same time,
    /// both win, and the limit holds.
    pub(crate) fn add(session: &mut Session, name: &str) -> sessile::Result<bool> {
        if Self::of(session)?.items.len() >= ITEMS_MAX {
            return Ok(false);
        }
        let name = name.to_owned();
        session.update(ENTRY, move |cart: &mut Self| {
            if cart.items.len() < ITEMS_MAX {
                cart.items.push(Item { number: cart.next, name });
                cart.next = cart.next.wrapping_add(1);
            }
        })?;
        Ok(true)
    }

    /// Removes an item in the store, at once: of two requests that remove the same item, one gets it.
    pub(crate) fn remove(session: &mut Session, number: u32) -> sessile::Result<Option<Item>> {
        session.update_now(ENTRY, |cart: &mut Self| {
            let place = cart.items.iter().position(|item| item.number == number)?;
            Some(cart.items.remove(place))
        })
    }
}
