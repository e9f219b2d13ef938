//! The valid tokens that a request has sent. This module uses no store.
use crate::id::Token;

/// The number of tokens that are stored without an allocation.
const INLINE: usize = 4;
/// The largest number of tokens that are kept. A `destroy` ends the sessions of all of them.
const KEPT_MAX: usize = 32;

/// Tokens without duplicates, in the order in which the request sent them.
#[derive(Default)]
pub(super) struct Candidates {
    /// The first tokens, from the first place on.
    first: [Option<Token>; INLINE],
    /// The tokens beyond [`INLINE`].
    more: Vec<Token>,
}

impl Candidates {
    /// Adds a token, unless it is there already or [`KEPT_MAX`] tokens are kept.
    pub(super) fn insert(&mut self, token: Token) {
        for place in &mut self.first {
            match place {
                Some(candidate) if *candidate == token => return,
                Some(_) => {}
                None => {
                    *place = Some(token);
                    return;
                }
            }
        }
        if self.more.len() < KEPT_MAX - INLINE && !self.more.contains(&token) {
            self.more.push(token);
        }
    }

    pub(super) fn contains(&self, token: &Token) -> bool {
        self.iter().any(|candidate| candidate == token)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Token> {
        self.first.iter().flatten().chain(&self.more)
    }

    /// Replaces a token by another one, if it is there.
    pub(super) fn replace(&mut self, old: &Token, new: &Token) {
        let mut all = self.first.iter_mut().flatten().chain(&mut self.more);
        if let Some(token) = all.find(|token| *token == old) {
            *token = new.clone();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: usize) -> Token {
        Token::parse(&format!("token-{n}")).unwrap()
    }
    fn of(numbers: impl IntoIterator<Item = usize>) -> Candidates {
        let mut candidates = Candidates::default();
        numbers.into_iter().for_each(|n| candidates.insert(token(n)));
        candidates
    }
    #[track_caller]
    fn check(candidates: &Candidates, want: impl IntoIterator<Item = usize>) {
        let want: Vec<_> = want.into_iter().map(token).collect();
        assert!(candidates.iter().eq(&want), "{} candidates", candidates.iter().count());
    }

    #[test]
    fn candidates_are_kept_in_order_each_once_up_to_a_limit() {
        check(&of([]), []);
        check(&of([3, 1, 3, 2, 1]), [3, 1, 2]);
        check(&of((0..INLINE).chain(0..INLINE)), 0..INLINE);
        check(&of((0..10).chain((0..10).rev())), 0..10);
        check(&of(0..KEPT_MAX), 0..KEPT_MAX);
        check(&of(0..2 * KEPT_MAX), 0..KEPT_MAX);
    }

    #[test]
    fn a_candidate_is_found_replaced_and_cleared_at_each_place() {
        for n in 0..10 {
            let mut candidates = of(0..10);
            assert!(candidates.contains(&token(n)) && !candidates.contains(&token(77)));
            candidates.replace(&token(n), &token(77));
            check(&candidates, (0..n).chain([77]).chain(n + 1..10));
            candidates.replace(&token(n), &token(78));
            assert!(!candidates.contains(&token(78)), "there was nothing to replace");
            candidates.clear();
            check(&candidates, []);
        }
    }
}
