//! How much memory each machine gets where the operator does not say.

use super::plan::Machine;
use super::{UpError, UpOptions};
use crate::role::types::RoleName;

/// Of any machine that a processor runs by itself.
const USUAL: u32 = 2048;

/// A control plane's and a worker's where QEMU emulates the processor, the best first. With less the page cache of a
/// starved machine is emptied again and again, and what it reads again it verifies and unpacks again: two machines of
/// 2 GiB never had a Node Ready, one of 4 GiB had after eleven minutes.
const EMULATED: [(u32, u32); 3] = [(4096, 3072), (3072, 2048), (USUAL, USUAL)];

/// What the host keeps for itself, and what QEMU needs for each machine's translated code.
pub const HOST_MB: u64 = 2048;
pub const TRANSLATED_MB: u64 = 1024;

/// Memory by role, in MiB; what the operator names wins.
fn of(role: RoleName, options: &UpOptions, (control_plane, worker): (u32, u32)) -> u32 {
    match role {
        RoleName::ControlPlane => options.memory_mb.unwrap_or(control_plane),
        _ => options.worker_memory_mb.or(options.memory_mb).unwrap_or(match role {
            RoleName::Worker => worker,
            _ => USUAL,
        }),
    }
}

/// Sets each machine's memory. `emulated_on` is the host's memory in MiB where QEMU emulates. Returns what is worth a
/// line: that machines get less than they should.
pub fn assign(
    machines: &mut [Machine],
    options: &UpOptions,
    emulated_on: Option<u64>,
) -> Result<Option<String>, UpError> {
    let (levels, said) = match emulated_on {
        None => ((USUAL, USUAL), None),
        // All of it is the operator's word.
        Some(_) if options.memory_mb.is_some() => (EMULATED[0], None),
        Some(host_mb) => fitting(machines, options, host_mb)?,
    };
    for machine in machines {
        machine.memory_mb = of(machine.role, options, levels);
    }
    Ok(said)
}

fn fitting(
    machines: &[Machine],
    options: &UpOptions,
    host_mb: u64,
) -> Result<((u32, u32), Option<String>), UpError> {
    let needed = |levels| {
        let each = machines.iter().map(|m| u64::from(of(m.role, options, levels)) + TRANSLATED_MB);
        each.sum::<u64>() + HOST_MB
    };
    let [best, .., least] = EMULATED;
    let Some(got) = EMULATED.into_iter().find(|levels| needed(*levels) <= host_mb) else {
        return Err(UpError::new(
            format!(
                "{} emulated machines need at least {} MiB of memory, with their translated code, and this host has {host_mb}",
                machines.len(),
                needed(least)
            ),
            "take fewer nodes, machines in namespaces (--driver machines, as root), or a size of your own by --memory",
        ));
    };
    let said = (got != best).then(|| {
        format!(
            "this host has {host_mb} MiB of memory: emulated control planes get {} MiB instead of {}, workers {} instead of {}, and are slower",
            got.0, best.0, got.1, best.1
        )
    });
    Ok((got, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::plan::tests::machine;
    use RoleName::{ControlPlane, Etcd, LoadBalancer, Worker};

    fn sizes(
        roles: &[RoleName],
        host_mb: Option<u64>,
        change: impl Fn(&mut UpOptions),
    ) -> Result<(Vec<u32>, Option<String>), String> {
        let mut options = UpOptions::new("c".into(), "s".into(), "i".into());
        change(&mut options);
        let mut machines: Vec<Machine> =
            roles.iter().enumerate().map(|(n, role)| machine(n, &format!("m{n}"), *role)).collect();
        let said = assign(&mut machines, &options, host_mb).map_err(|error| error.to_string())?;
        Ok((machines.iter().map(|m| m.memory_mb).collect(), said))
    }

    #[test]
    fn emulated_machines_get_more() {
        let roles = [ControlPlane, Worker, LoadBalancer, Etcd];
        assert_eq!(sizes(&roles, None, |_| {}), Ok((vec![2048; 4], None)));
        assert_eq!(sizes(&roles, Some(65_536), |_| {}), Ok((vec![4096, 3072, 2048, 2048], None)));
    }

    #[test]
    fn a_small_host_gives_less_and_says_so_or_refuses() {
        let roles = [ControlPlane, Worker];
        // 4096 + 3072, twice 1024 for the translated code, 2048 for the host.
        assert_eq!(sizes(&roles, Some(11_264), |_| {}), Ok((vec![4096, 3072], None)));
        assert_eq!(
            sizes(&roles, Some(11_263), |_| {}),
            Ok((
                vec![3072, 2048],
                Some(
                    "this host has 11263 MiB of memory: emulated control planes get 3072 MiB instead of 4096, workers 2048 \
                     instead of 3072, and are slower"
                        .into()
                )
            ))
        );
        assert_eq!(sizes(&roles, Some(8192), |_| {}).expect("memory").0, [2048, 2048]);
        assert_eq!(
            sizes(&roles, Some(8191), |_| {}),
            Err("2 emulated machines need at least 8192 MiB of memory, with their translated code, and this host has 8191\n  \
                 remedy: take fewer nodes, machines in namespaces (--driver machines, as root), or a size of your own by --memory"
                .into())
        );
    }

    #[test]
    fn what_the_operator_names_wins() {
        let roles = [ControlPlane, Worker];
        for host in [None, Some(4096), Some(65_536)] {
            let sizes = |change: &dyn Fn(&mut UpOptions)| sizes(&roles, host, change).map(|(sizes, _)| sizes);
            assert_eq!(sizes(&|o| o.memory_mb = Some(1800)), Ok(vec![1800, 1800]));
            let both = |o: &mut UpOptions| (o.memory_mb, o.worker_memory_mb) = (Some(2500), Some(1500));
            assert_eq!(sizes(&both), Ok(vec![2500, 1500]));
        }
        assert_eq!(
            sizes(&roles, Some(65_536), |o| o.worker_memory_mb = Some(1500)).expect("memory").0,
            [4096, 1500]
        );
    }
}
