//! The peers, one per file, each with its configuration and the reason for it.
mod fjall;
mod floor;
mod lmdb;
mod postgres;
mod redb;
mod redis;
mod rename;
mod server;
mod sessile;
mod sqlite;

pub(crate) use self::sessile::{Sessile, token};
pub(crate) use server::resident;

use crate::peer::{Peer, Setting};

/// The peers that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum PeerName {
    Sessile,
    Floor,
    Rename,
    Sqlite,
    Lmdb,
    Redb,
    Fjall,
    Redis,
    Postgres,
}

impl PeerName {
    pub(crate) const ALL: [Self; 9] = [
        Self::Sessile,
        Self::Floor,
        Self::Rename,
        Self::Sqlite,
        Self::Lmdb,
        Self::Redb,
        Self::Fjall,
        Self::Redis,
        Self::Postgres,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sessile => "sessile",
            Self::Floor => "floor",
            Self::Rename => "rename",
            Self::Sqlite => "sqlite",
            Self::Lmdb => "lmdb",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// Its name as it writes it itself.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Lmdb => "LMDB",
            Self::Redis => "Redis",
            Self::Postgres => "PostgreSQL",
            Self::Sessile | Self::Floor | Self::Rename | Self::Redb | Self::Fjall => self.name(),
        }
    }

    /// Whether it is installed on this machine: a server may not be.
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::Redis => server::find("redis-server").is_some(),
            Self::Postgres => server::find("postgres").is_some() && server::find("initdb").is_some(),
            _ => true,
        }
    }

    pub(crate) fn open(self, setting: Setting) -> Box<dyn Peer> {
        std::fs::create_dir_all(&setting.dir).expect("a new directory");
        match self {
            Self::Sessile => Box::new(Sessile::open(setting)),
            Self::Floor => Box::new(floor::Floor::open(setting)),
            Self::Rename => Box::new(rename::Rename::open(setting)),
            Self::Sqlite => Box::new(sqlite::Sqlite::open(setting)),
            Self::Lmdb => Box::new(lmdb::Lmdb::open(setting)),
            Self::Redb => Box::new(redb::Redb::open(setting)),
            Self::Fjall => Box::new(fjall::Fjall::open(setting)),
            Self::Redis => Box::new(redis::Redis::open(setting)),
            Self::Postgres => Box::new(postgres::Postgres::open(setting)),
        }
    }
}
