//! Closed sets of words: an enum whose variants each have one fixed name,
//! used in the catalogue, in manifests and on the wire alike.

/// A word that is in none of the closed sets it could have come from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{set} has no member {name:?}")]
pub struct UnknownName {
    /// The set that was asked, such as `backup status`.
    pub set: &'static str,
    /// The word that it does not hold.
    pub name: String,
}

/// Declares an enum whose variants have fixed names, with `name`, `ALL`,
/// `Display`, `FromStr`, serde and the schema by name. For the crates of Cairn; it
/// needs `serde` and `utoipa` in scope.
#[macro_export]
macro_rules! named {
    (
        $(#[$meta:meta])* $vis:vis enum $enum:ident : $set:literal {
            $( $(#[$vmeta:meta])* $variant:ident = $name:literal ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $enum { $( $(#[$vmeta])* $variant ),+ }

        impl $enum {
            /// Every member, in the order of declaration.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The fixed name: what the catalogue stores and CBR calls it.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name ),+ }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::UnknownName;
            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|member| member.name() == name).ok_or_else(|| {
                    $crate::UnknownName { set: $set, name: name.to_owned() }
                })
            }
        }

        impl serde::Serialize for $enum {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $enum {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $enum {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .enum_values(Some(Self::ALL.iter().map(|member| member.name())))
                    .into()
            }
        }

        impl utoipa::ToSchema for $enum {}
    };
}
pub(crate) use named;
