//! `sessile completions` and `sessile man`, from the same source as `--help`.
use crate::args::Args;
use crate::{Failure, Outcome, VerbResult};
use clap::CommandFactory;
use std::io::{self, Write};

pub(crate) fn completions(shell: clap_complete::Shell) -> VerbResult {
    // The generator panics if it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "sessile", &mut script);
    write(&script)
}

pub(crate) fn man(verb: Option<&str>) -> VerbResult {
    let mut command = Args::command();
    command.build();
    let command = match verb {
        None => command,
        Some(verb) => command.find_subcommand(verb).ok_or(Failure::Usage("there is no such verb"))?.clone(),
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    write(&page)
}

fn write(text: &[u8]) -> VerbResult {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    Ok(Outcome::Ok)
}
