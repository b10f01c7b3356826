//! Who calls, and what that one may do.
//!
//! - [`scope`]: what a key may do, and where
//! - [`keys`]: API keys, `id.secret`, from a file that holds only their hashes
//! - [`jwt`]: JSON Web Tokens as an alternative
//! - [`rate`]: how often one caller may call
//! - [`credentials`]: all of them together, read anew when their files change

pub(crate) mod credentials;
pub(crate) mod jwt;
pub(crate) mod keys;
pub(crate) mod rate;
pub(crate) mod scope;

use std::sync::Arc;

use crate::api::problem::{Code, Problem};
use crate::auth::rate::Limiter;
use crate::auth::scope::{Action, Scope};

/// Somebody who has shown who he is, or anybody where no keys are configured.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Tells callers apart: `key:<id>`, `jwt:<subject>` or `-`.
    pub(crate) id: Arc<str>,
    scopes: Arc<[Scope]>,
    limiter: Option<Arc<Limiter>>,
}

impl Caller {
    pub(crate) fn new(id: Arc<str>, scopes: Arc<[Scope]>, limiter: Option<Arc<Limiter>>) -> Self {
        Self { id, scopes, limiter }
    }

    /// Anybody on this machine, who may do everything.
    pub(crate) fn anybody() -> Self {
        Self { id: "-".into(), scopes: Arc::new([Scope::everything()]), limiter: None }
    }

    /// Checks that a scope covers an action in a namespace.
    ///
    /// # Errors
    /// [`Code::InsufficientScope`], naming the scope that is wanted.
    pub(crate) fn may(&self, action: Action, namespace: &str) -> Result<(), Problem> {
        if self.scopes.iter().any(|scope| scope.covers(action, namespace)) {
            return Ok(());
        }
        let wanted = format!("{}:{namespace}", action.as_str());
        let detail = format!("this call wants the scope {wanted:?}, which the key does not have");
        Err(Problem::new(Code::InsufficientScope, detail))
    }

    /// Counts one operation.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the wait.
    pub(crate) fn charge(&self) -> Result<(), Problem> {
        let Some(wait) = self.limiter.as_ref().and_then(|limiter| limiter.charge()) else { return Ok(()) };
        let detail = "this key makes too many calls; slow down, or raise its rate_per_second";
        Err(Problem::new(Code::RateLimited, detail).after(wait))
    }
}
