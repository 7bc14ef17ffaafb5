//! What can be planted, to show that the properties find it.

/// A rule of the design that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Nothing is.
    None,
    /// A worker's old finding removes a link although something came to need it since.
    LinkCollectedUnchecked,
    /// A worker's old finding condemns a blob although a tenant came to hold it since.
    CondemnedUnchecked,
    /// A link goes as soon as nothing needs it.
    NoGrace,
    /// A wall clock that was set forward makes everything old enough.
    WallClockInGrace,
    /// A HEAD of a blob that nothing needs leaves no pin.
    HeadDoesNotPin,
    /// A HEAD takes the need of any repository for the need of its own, and leaves no pin.
    NeedOfAnotherRepository,
    /// The end of an artifact does not restart the age of what it needed.
    AgeSurvivesReference,
    /// A mount takes the link's word for it that there is a live copy, where there is none.
    MountOfCondemned,
    /// A push of a condemned blob takes its name, generation and all.
    GenerationReused,
    /// A push of a condemned blob brings the condemned copy back.
    CondemnedRevived,
    /// Nodes delete at once what was condemned.
    SweptAtOnce,
    /// Nodes delete by digest, whatever the generation.
    SweptByDigest,
    /// Files without a row are orphans, whoever is writing them.
    OrphansUnfenced,
    /// Files without a live row are orphans, whoever is reading them.
    GarbageTakenForOrphans,
    /// An artifact is accepted if some repository shows what it needs.
    AcceptedForAnother,
    /// The tenant's bytes are released with each link, not with the last.
    ReleasedTwice,
    /// A row of garbage goes with the first node that has deleted its copy.
    GarbageForgotten,
    /// A node says that it deleted before it does.
    SweptBeforeDeleted,
}

impl Bug {
    /// Those that break no property: what they leave behind is an orphan, and goes as one.
    pub const HARMLESS: [Self; 2] = [Self::GarbageForgotten, Self::SweptBeforeDeleted];

    /// Every one that breaks something.
    pub const PLANTED: [Self; 16] = [
        Self::LinkCollectedUnchecked,
        Self::CondemnedUnchecked,
        Self::NoGrace,
        Self::WallClockInGrace,
        Self::HeadDoesNotPin,
        Self::NeedOfAnotherRepository,
        Self::AgeSurvivesReference,
        Self::MountOfCondemned,
        Self::GenerationReused,
        Self::CondemnedRevived,
        Self::SweptAtOnce,
        Self::SweptByDigest,
        Self::OrphansUnfenced,
        Self::GarbageTakenForOrphans,
        Self::AcceptedForAnother,
        Self::ReleasedTwice,
    ];
}
