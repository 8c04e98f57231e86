//! Small tools for SQL text and rows: conditions with numbered parameters,
//! pages, and columns read as the types they stand for.

use std::str::FromStr;

use cairn_types::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, Arguments, AssertSqlSafe, Row};

use crate::{Error, Result, Tx};

/// Which rows of a list: `limit` of them, after skipping `offset`, behind the row `marker`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// How many rows at the most.
    pub limit: u32,
    /// How many matching rows to pass over first.
    pub offset: u64,
    /// The id of the last row of the page before.
    pub marker: Option<String>,
}

/// A statement under construction. The text is made of constants; every value is a parameter.
#[derive(Default)]
pub(crate) struct Statement {
    text: String,
    arguments: AnyArguments,
    conditions: usize,
}

/// A value of a parameter.
pub(crate) enum Value {
    Text(String),
    OptionalText(Option<String>),
    Integer(i64),
    OptionalInteger(Option<i64>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(i64::from(value))
    }
}
impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Integer(value.as_micros())
    }
}
impl From<Option<Timestamp>> for Value {
    fn from(value: Option<Timestamp>) -> Self {
        Self::OptionalInteger(value.map(Timestamp::as_micros))
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::OptionalText(value)
    }
}

/// Everything else that is written as its text: ids and names.
pub(crate) fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

/// A text column that may be null.
pub(crate) fn optional(value: Option<impl ToString>) -> Value {
    Value::OptionalText(value.map(|value| value.to_string()))
}

/// A JSON column.
pub(crate) fn json(value: &impl serde::Serialize) -> Value {
    Value::Text(serde_json::to_string(value).expect("our records have string keys only"))
}

impl Statement {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// Adds constant text.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a parameter: its number in the text, its value to the arguments.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        let added = match value.into() {
            Value::Text(value) => self.arguments.add(value),
            Value::OptionalText(value) => self.arguments.add(value),
            Value::Integer(value) => self.arguments.add(value),
            Value::OptionalInteger(value) => self.arguments.add(value),
        };
        added.expect("texts and integers can always be encoded");
        self.text.push('$');
        self.text.push_str(&self.arguments.len().to_string());
        self
    }

    /// Starts a condition: `WHERE` for the first, `AND` for the others.
    pub(crate) fn condition(&mut self, text: &str) -> &mut Self {
        self.push(if self.conditions == 0 {
            " WHERE "
        } else {
            " AND "
        })
        .push(text);
        self.conditions += 1;
        self
    }

    /// `column = value`, if there is a value.
    pub(crate) fn equals(&mut self, column: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.condition(column).push(" = ").bind(value.to_string());
        }
        self
    }

    /// `column` is one of the values, if there are any.
    pub(crate) fn one_of<T: ToString>(&mut self, column: &str, values: &[T]) -> &mut Self {
        if !values.is_empty() {
            self.condition(column).push(" IN (");
            self.list(values.iter().map(|value| Value::Text(value.to_string())))
                .push(")");
        }
        self
    }

    /// `column` contains the text, whatever it holds, if there is one.
    pub(crate) fn contains(&mut self, column: &str, part: Option<&str>) -> &mut Self {
        if let Some(part) = part {
            let escaped = part
                .replace('\\', "\\\\")
                .replace('%', "\\%")
                .replace('_', "\\_");
            self.condition("LOWER(").push(column).push(") LIKE LOWER(");
            self.bind(format!("%{escaped}%")).push(") ESCAPE '\\'");
        }
        self
    }

    /// Parameters with commas between.
    pub(crate) fn list(&mut self, values: impl IntoIterator<Item = Value>) -> &mut Self {
        for (position, value) in values.into_iter().enumerate() {
            if position > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
        self
    }

    /// The page's limit and offset.
    pub(crate) fn page(&mut self, page: &Page) -> &mut Self {
        self.push(" LIMIT ").bind(i64::from(page.limit));
        let offset = i64::try_from(page.offset).unwrap_or(i64::MAX);
        self.push(" OFFSET ").bind(offset)
    }

    fn into_query(self) -> Query<'static, Any, AnyArguments> {
        sqlx::query_with(AssertSqlSafe(self.text), self.arguments)
    }

    pub(crate) async fn run(self, tx: &mut Tx) -> Result<u64> {
        Ok(self
            .into_query()
            .execute(tx.connection())
            .await?
            .rows_affected())
    }

    pub(crate) async fn all<T: FromRow>(self, tx: &mut Tx) -> Result<Vec<T>> {
        let rows = self.into_query().fetch_all(tx.connection()).await?;
        rows.iter().map(T::from_row).collect()
    }

    pub(crate) async fn one<T: FromRow>(self, tx: &mut Tx) -> Result<Option<T>> {
        let row = self.into_query().fetch_optional(tx.connection()).await?;
        row.as_ref().map(T::from_row).transpose()
    }

    /// The integer in the one column of the one row, 0 for null.
    pub(crate) async fn number(self, tx: &mut Tx) -> Result<i64> {
        let row = self.into_query().fetch_one(tx.connection()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))
    }
}

/// Inserts one row.
pub(crate) async fn insert<const N: usize>(
    tx: &mut Tx,
    table: &str,
    columns: [(&'static str, Value); N],
) -> Result<()> {
    let mut statement = Statement::new("INSERT INTO ");
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    statement
        .push(table)
        .push(" (")
        .push(&names.join(", "))
        .push(") VALUES (");
    statement
        .list(columns.into_iter().map(|(_, value)| value))
        .push(")");
    statement.run(tx).await?;
    Ok(())
}

/// A record read from a row, by the names of its columns.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &AnyRow) -> Result<Self>;
}

/// Columns read as the types they stand for.
pub(crate) trait Columns {
    fn text(&self, column: &str) -> Result<String>;
    fn optional_text(&self, column: &str) -> Result<Option<String>>;
    fn integer(&self, column: &str) -> Result<i64>;
    fn parsed<T: FromStr>(&self, column: &str) -> Result<T>;
    fn optional_parsed<T: FromStr>(&self, column: &str) -> Result<Option<T>>;
    fn unsigned(&self, column: &str) -> Result<u64>;
    fn flag(&self, column: &str) -> Result<bool>;
    fn time(&self, column: &str) -> Result<Timestamp>;
    fn optional_time(&self, column: &str) -> Result<Option<Timestamp>>;
    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T>;
}

fn unreadable(column: &str, value: &str) -> Error {
    Error::Column {
        column: column.to_owned(),
        value: value.chars().take(64).collect(),
    }
}

impl Columns for AnyRow {
    fn text(&self, column: &str) -> Result<String> {
        Ok(self.try_get(column)?)
    }
    fn optional_text(&self, column: &str) -> Result<Option<String>> {
        Ok(self.try_get(column)?)
    }
    fn integer(&self, column: &str) -> Result<i64> {
        Ok(self.try_get(column)?)
    }
    fn parsed<T: FromStr>(&self, column: &str) -> Result<T> {
        let value = self.text(column)?;
        value.parse().map_err(|_| unreadable(column, &value))
    }
    fn optional_parsed<T: FromStr>(&self, column: &str) -> Result<Option<T>> {
        self.optional_text(column)?
            .map(|value| value.parse().map_err(|_| unreadable(column, &value)))
            .transpose()
    }
    fn unsigned(&self, column: &str) -> Result<u64> {
        let value = self.integer(column)?;
        u64::try_from(value).map_err(|_| unreadable(column, &value.to_string()))
    }
    fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.integer(column)? != 0)
    }
    fn time(&self, column: &str) -> Result<Timestamp> {
        Ok(Timestamp::from_micros(self.integer(column)?))
    }
    fn optional_time(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self
            .try_get::<Option<i64>, _>(column)?
            .map(Timestamp::from_micros))
    }
    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        let value = self.text(column)?;
        serde_json::from_str(&value).map_err(|_| unreadable(column, &value))
    }
}
