//! `nora cluster rotate-authority`: begins, and watches until every member has gone over to the new authority.
//!
//! The certificates that this command shows and trusts are replaced meanwhile, so it reads them anew for each look.

use std::time::{Duration, Instant};

use nora_client::admin::{AdminError, RotationStatus};
use serde::Serialize;

use super::admin::AdminArgs;
use super::connection::ConnectionArgs;
use super::consent::ConsentArgs;
use super::failure::{Failure, say_note, say_warning};
use super::output::Output;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For how long members may be out of reach, one after another: connections of before are closed at the end.
const SILENCE_MAX: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Rotated {
    is_over: bool,
}

pub(crate) async fn run(
    args: &AdminArgs,
    connection: &ConnectionArgs,
    (wait, consent): (bool, ConsentArgs),
    output: &Output,
) -> Result<(), Failure> {
    let what = "replace the cluster's authority, its shared secret and the keys of all sessions, and end all join tokens";
    if !consent.given(what)? {
        return Ok(());
    }
    args.client(connection)?.rotate_authority().await?;
    say_note("the rotation has begun; every member has to take part");
    if wait {
        watch(args, connection).await?;
        say_note(
            "the old authority and the old secrets open nothing any more; sessions have to log in again, and \
             'nora cluster join-token' makes new join tokens",
        );
    }
    output.print(&Rotated { is_over: wait }, String::new)
}

/// Looks until no rotation is under way.
async fn watch(args: &AdminArgs, connection: &ConnectionArgs) -> Result<(), Failure> {
    let (mut told, mut heard, mut is_over) = (None, Instant::now(), false);
    loop {
        let looked = async { Ok::<_, Failure>(args.client(connection)?.status().await?.rotation) };
        match looked.await {
            // The member that is asked is through. The others, half a second later at most.
            Ok(None) if is_over => return Ok(()),
            Ok(None) => is_over = true,
            Ok(Some(rotation)) => {
                heard = Instant::now();
                if told.as_ref() != Some(&rotation) {
                    say_note(&in_words(&rotation));
                    told = Some(rotation);
                }
            }
            Err(failure) if heard.elapsed() > SILENCE_MAX => {
                say_warning(
                    "the members may have gone over to the new authority already: look with the new identity/ca.crt of a \
                     member's data folder, 'nora cluster status --ca FILE'",
                );
                return Err(failure);
            }
            Err(Failure::Admin(
                AdminError::Unreachable { .. } | AdminError::Refused(_) | AdminError::File { .. },
            )) => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A rotation for people.
pub(super) fn in_words(rotation: &RotationStatus) -> String {
    let RotationStatus { stage, waits_for, .. } = rotation;
    let done = match *stage {
        "trust" => "trusted by all",
        _ => "shown by all",
    };
    let nodes: Vec<String> = waits_for.iter().map(u64::to_string).collect();
    match nodes.as_slice() {
        [] => format!("the new authority is {done}"),
        nodes => {
            format!("until the new authority is {done}, waiting for node {}", nodes.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_says_whom_it_waits_for() {
        let rotation = |stage, waits_for| RotationStatus { stage, begun_at: 0, waits_for };
        let text = in_words(&rotation("trust", vec![2, 3]));
        assert_eq!(text, "until the new authority is trusted by all, waiting for node 2, 3");
        assert_eq!(in_words(&rotation("show", vec![])), "the new authority is shown by all");
    }
}
