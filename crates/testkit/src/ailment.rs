//! The kinds of failure of a store behind a network, by name.

/// A request, as far as ailments tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// An object is put, whatever is there.
    Put,
    /// An object is put that must not be there.
    Create,
    /// An upload begins.
    Start,
    /// A part is uploaded.
    Part,
    /// An upload ends.
    Complete,
    /// An upload is given up.
    Abort,
    /// Bytes are read.
    Get,
    /// The size is asked for.
    Head,
    /// Names are asked for.
    List,
    /// An object is removed.
    Delete,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// An error, and nothing was done.
    Refused,
    /// All was done, and the answer is an error.
    AnswerLost,
    /// All was done, and no answer ever comes.
    Hangs,
    /// "The disk is full".
    Full,
    /// "There is no such object", where there is.
    NotFound,
    /// "There is such an object already", where there is not.
    Exists,
    /// "Done", and nothing was done.
    Lost,
    /// "Done", with the last byte missing.
    Cut,
    /// A body that ends a byte early, without an error.
    Short,
    /// A body that breaks off in the middle.
    Breaks,
    /// A body that never ends.
    Stalls,
    /// A body with a bit changed.
    Flipped,
    /// The bytes of some other object.
    Other,
    /// A size that is one too small.
    WrongSize,
    /// Names as they were when the ailment began.
    Stale,
    /// Every other name.
    Partial,
    /// No names.
    Empty,
    /// Every name twice.
    Twice,
}

/// One way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ailment {
    /// Which requests.
    pub request: Request,
    /// How.
    pub fate: Fate,
}

impl Ailment {
    /// Every kind there is.
    pub const ALL: &[Self] = &kinds();

    /// Whether requests are answered with something untrue, instead of not or late.
    pub fn is_lie(self) -> bool {
        use Fate::*;
        !matches!(
            self.fate,
            Refused | AnswerLost | Hangs | Full | Breaks | Stalls
        )
    }
}

const fn kinds() -> [Ailment; 43] {
    use Fate::*;
    use Request::*;
    const fn of(request: Request, fate: Fate) -> Ailment {
        Ailment { request, fate }
    }
    [
        of(Put, Refused),
        of(Put, AnswerLost),
        of(Put, Hangs),
        of(Put, Full),
        of(Put, Lost),
        of(Put, Cut),
        of(Put, Exists),
        of(Create, Refused),
        of(Create, AnswerLost),
        of(Create, Hangs),
        of(Create, Exists),
        of(Create, Lost),
        of(Start, Refused),
        of(Start, AnswerLost),
        of(Part, Refused),
        of(Part, AnswerLost),
        of(Part, Full),
        of(Part, Cut),
        of(Complete, Refused),
        of(Complete, AnswerLost),
        of(Complete, Lost),
        of(Complete, NotFound),
        of(Abort, Refused),
        of(Get, Refused),
        of(Get, Hangs),
        of(Get, NotFound),
        of(Get, Short),
        of(Get, Breaks),
        of(Get, Stalls),
        of(Get, Flipped),
        of(Get, Other),
        of(Head, Refused),
        of(Head, NotFound),
        of(Head, WrongSize),
        of(List, Refused),
        of(List, Breaks),
        of(List, Twice),
        of(List, Stale),
        of(List, Partial),
        of(List, Empty),
        of(Delete, Refused),
        of(Delete, AnswerLost),
        of(Delete, Lost),
    ]
}
