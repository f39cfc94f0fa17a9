//! Kindling brings a Kubernetes node up at first boot.
//!
//! The nouns, in the order of the pipeline:
//! *cluster file* (the whole cluster, by the operator) and *secrets* -> `kindling render` -> a *role
//! file* and a *seed* for every node -> the agent reads the role file into a validated *node spec*,
//! takes *facts* of the host, makes a *plan* of *steps*, applies it, and keeps a *status*.

#[macro_use]
pub mod output;

pub mod access;
pub mod agent;
pub mod apply;
pub mod banner;
pub mod certs;
pub mod cluster;
pub mod dns;
pub mod emulated;
pub mod endpoint;
pub mod error;
pub mod etcd;
pub mod facts;
pub mod formation;
pub mod guestinfo;
pub mod help;
pub mod host;
pub mod image;
pub mod input;
pub mod kube;
pub mod lease;
pub mod mint;
pub mod operator;
pub mod plan;
pub mod preflight;
pub mod published;
pub mod render;
pub mod report;
pub mod reset;
pub mod retry;
pub mod role;
pub mod room;
pub mod runtime;
pub mod status;
pub mod step;
pub mod suggest;
pub mod survey;
pub mod up;
