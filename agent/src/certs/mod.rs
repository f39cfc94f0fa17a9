//! The certificates on a node: when each ends, who renews it (`kindling certs`), and the renewal of those that nobody else
//! renews (`kindling certs renew`, run by kindling-certs.timer).

mod command;
mod list;
mod renew;

pub use command::{Options, run};
pub use list::{Entry, Renewer, entries};
pub use renew::{MARK, Renewal, due};
