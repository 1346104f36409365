//! Commands that were renamed: refused with a message that names the new command.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The old word, and what to say about it.
const RENAMED: [(&str, &str); 3] = [
    ("bench", "`silverd bench` is now `silverd-bench`"),
    ("flat", "`silverd flat` is now `silverd-bench soak`"),
    (
        "rollback",
        "`silverd plugin rollback TABLE --to DIGEST` is now `silverd plugin deploy TABLE --digest DIGEST` (`silverd \
         plugin history TABLE` lists the digests), and `silverd plugin rollback TABLE --release` is now `silverd \
         plugin deploy TABLE`",
    ),
];

/// The message for an unknown command that was renamed; `None` for any other error.
pub(super) fn message(error: &clap::Error) -> Option<&'static str> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    RENAMED.iter().find(|(old, _)| old == word).map(|(_, message)| *message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    #[track_caller]
    fn check(command: &str, expected: Option<&str>) {
        let error = Cli::try_parse_from(command.split(' ')).err();
        let found = error.as_ref().and_then(message);
        assert_eq!(found.is_some(), expected.is_some(), "{command}: {found:?}");
        assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{command}: {found:?}");
    }

    #[test]
    fn renamed_commands_name_the_new_one() {
        check("silverd flat", Some("`silverd-bench soak`"));
        check("silverd --log warn bench --events 5", Some("`silverd-bench`"));
        check("silverd plugin rollback hits", Some("`silverd plugin deploy TABLE --digest DIGEST`"));
        check("silverd plugin rollback hits --to abc", Some("`silverd plugin deploy TABLE --digest DIGEST`"));
        check("silverd plugin rollback hits --release", Some("`silverd plugin deploy TABLE`"));
        check("silverd plugin deploy hits --digest abc", None);
        check("silverd plugin deploys", None);
        check("silverd sing", None);
    }

    #[test]
    fn help_does_not_show_renamed_commands() {
        let mut cli = Cli::command();
        let plugin = cli.find_subcommand_mut("plugin").unwrap().render_long_help().to_string();
        let help = cli.render_long_help().to_string() + &plugin;
        assert!(help.contains("deploy") && RENAMED.iter().all(|(old, _)| !help.contains(old)), "{help}");
    }
}
