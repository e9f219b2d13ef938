//! `sessile delete --older-than`: ends the sessions that were created long ago.
use crate::store::AnyStore;
use crate::terminal::{error_chain, json_line, print};
use crate::{Outcome, VerbResult};
use indicatif::HumanCount;
use serde_json::json;
use sessile::admin::Scanned;
use std::time::Duration;

pub(crate) fn delete(store: &AnyStore, age: Duration, json: bool) -> VerbResult {
    let admin = store.admin();
    let now = admin.now();
    let (mut examined, mut deleted, mut refused) = (0_u64, 0_u64, 0_u64);
    let failed = store.scan(None, &mut store.progress(), |bar, found| {
        let Scanned::Live(live) = found else { return Ok(true) };
        examined += 1;
        if now.duration_since(live.record.timing().created).is_ok_and(|since| since >= age) {
            match admin.delete_by_id(&live.id) {
                Ok(ended) => deleted += u64::from(ended.is_some()),
                Err(error) => {
                    refused += 1;
                    bar.warn(error_chain(&error));
                }
            }
        }
        Ok(true)
    })?;
    let failed = failed + refused;
    print(if json {
        json_line(&json!({"examined": examined, "deleted": deleted, "failed": failed}))
    } else {
        format!(
            "{} of {} sessions deleted, {} failed",
            HumanCount(deleted),
            HumanCount(examined),
            HumanCount(failed)
        )
    })?;
    Ok(if refused > 0 {
        Outcome::Incomplete
    } else if failed > 0 {
        Outcome::Findings
    } else {
        Outcome::Ok
    })
}
