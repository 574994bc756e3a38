//! The SIP message that a row describes, and the words that name it. Pure.

/// The SIP message that a row describes. The order is the one assumed for rows with the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RowKind {
    InviteRequest,
    /// A request whose method the row does not name.
    Request,
    InviteReply,
    /// A reply to a request that the row does not name.
    Reply,
    ByeRequest,
    ByeReply,
}

impl RowKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [RowKind; 6] = [
        RowKind::InviteRequest,
        RowKind::Request,
        RowKind::InviteReply,
        RowKind::Reply,
        RowKind::ByeRequest,
        RowKind::ByeReply,
    ];

    pub fn is_reply(self) -> bool {
        matches!(self, RowKind::InviteReply | RowKind::Reply | RowKind::ByeReply)
    }
}

/// The meaning of a row's `method` or `event` field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowLabel {
    pub(super) method: SipMethod,
    pub(super) is_reply: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SipMethod {
    #[default]
    Unknown,
    Invite,
    Bye,
    /// A method that the log does not use, such as ACK, CANCEL or OPTIONS.
    Other,
}

/// SIP methods other than INVITE and BYE (RFC 3261, 3262, 3311, 3428, 3515, 3903, 6086, 6665).
const OTHER_METHODS: [&str; 12] = [
    "ack",
    "cancel",
    "options",
    "register",
    "prack",
    "update",
    "message",
    "refer",
    "publish",
    "info",
    "subscribe",
    "notify",
];

impl RowLabel {
    /// Parses a text such as `INVITE`, `invite_request`, `BYE reply` or `request`. Returns `None` if it has no known word.
    pub(super) fn parse(text: &str) -> Option<RowLabel> {
        let mut label = RowLabel::default();
        let mut is_known = false;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            let is = |known: &str| word.eq_ignore_ascii_case(known);
            match () {
                () if is("invite") => label.method = SipMethod::Invite,
                () if is("bye") => label.method = SipMethod::Bye,
                () if is("request") || is("req") => label.is_reply = Some(false),
                () if is("reply") || is("response") || is("resp") => label.is_reply = Some(true),
                () if OTHER_METHODS.iter().any(|method| is(method)) => label.method = SipMethod::Other,
                () => continue,
            }
            is_known = true;
        }
        is_known.then_some(label)
    }

    pub(super) fn kind(self, is_reply: bool) -> RowKind {
        match (self.method, is_reply) {
            (SipMethod::Invite, false) => RowKind::InviteRequest,
            (SipMethod::Invite, true) => RowKind::InviteReply,
            (SipMethod::Bye, false) => RowKind::ByeRequest,
            (SipMethod::Bye, true) => RowKind::ByeReply,
            (_, false) => RowKind::Request,
            (_, true) => RowKind::Reply,
        }
    }
}
