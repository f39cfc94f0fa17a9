//! `kindling status --cluster`.

use std::path::Path;

use super::{Kubeconfig, ask, judge};
use crate::cluster;
use crate::status::exit;

/// `cluster_file` need not be there: then only what the API knows is looked at.
pub fn run(cluster_file: &Path, kubeconfig: &Path, json: bool) -> u8 {
    let config = match Kubeconfig::read(kubeconfig) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("kindling: {error}");
            return exit::CONFIG;
        }
    };
    let cluster = if cluster_file.exists() {
        match cluster::load(cluster_file) {
            Ok((cluster, _)) => Some(cluster),
            Err(report) => {
                eprintln!("{report}");
                return exit::CONFIG;
            }
        }
    } else {
        None
    };
    let answers = match ask::ask(&config, cluster.as_ref()) {
        Ok(answers) => answers,
        Err(error) => {
            eprintln!("kindling: {error}\n  remedy: {}", remedy(&error));
            return exit::FAILED;
        }
    };
    let mut survey = judge(&answers);
    if cluster.is_none() {
        survey.notes.push(format!(
            "{} is not there: missing machines, the VIP and an external etcd were not looked for",
            cluster_file.display()
        ));
    }
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&survey).expect("a survey has only types that JSON knows")
        );
    } else {
        println!("{survey}");
    }
    if survey.well { exit::DONE } else { exit::FAILED }
}

fn remedy(error: &crate::kube::KubeError) -> &'static str {
    use crate::kube::KubeError;
    match error {
        KubeError::Status { status: 401 | 403, .. } => {
            "the kubeconfig's certificate is of another cluster or has ended: `kindling new --renew`, then `kindling render`"
        }
        KubeError::Untrusted { .. } => "give the kubeconfig of this cluster with --kubeconfig",
        _ => {
            "neither the endpoint nor a control plane answers from here: look at the machines' consoles; on a control plane `kindling status`"
        }
    }
}
