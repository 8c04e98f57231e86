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

/// A key to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// The column.
    pub column: &'static str,
    /// The largest value first.
    pub descending: bool,
}

impl SortKey {
    pub(crate) const fn newest(column: &'static str) -> Self {
        Self {
            column,
            descending: true,
        }
    }
}

/// The order of a list, and where its rows are found again by a marker.
pub(crate) struct Order<'a> {
    /// The table, with its alias if the list's statement gives it one.
    pub(crate) table: &'static str,
    /// That alias and a dot, or nothing.
    pub(crate) prefix: &'static str,
    /// Whether backups that others share with the project are in the list.
    pub(crate) shared: bool,
    /// The keys; the id decides where they do not.
    pub(crate) keys: &'a [SortKey],
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

/// PostgreSQL takes no text that holds a NUL, and none of ours should: it
/// becomes the sign for what cannot be shown, so that a search for it finds
/// nothing and neither database fails.
fn without_nul(text: String) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}"),
        false => text,
    }
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
            Value::Text(value) => self.arguments.add(without_nul(value)),
            Value::OptionalText(value) => self.arguments.add(value.map(without_nul)),
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

    /// The page of an ordered list: what lies behind the marker, by all of the
    /// keys, whatever their directions. The marker is looked for in the
    /// project alone; behind one that is not there lies nothing.
    pub(crate) fn ordered_page(
        &mut self,
        order: &Order<'_>,
        project: impl ToString + Copy,
        page: &Page,
    ) -> &mut Self {
        let first_descends = order.keys.first().is_some_and(|key| key.descending);
        let mut keys = order.keys.to_vec();
        keys.push(SortKey {
            column: "id",
            descending: first_descends,
        });
        // Behind the id, nothing is left to decide.
        let id = keys.iter().position(|key| key.column == "id");
        keys.truncate(id.map_or(keys.len(), |id| id + 1));
        if let Some(marker) = &page.marker {
            self.behind(order, &keys, project, marker);
        }
        self.push(" ORDER BY ");
        for (position, key) in keys.iter().enumerate() {
            self.push(if position > 0 { ", " } else { "" });
            self.push_column(order, key);
            self.push(if key.descending { " DESC" } else { "" });
        }
        self.page(page)
    }

    /// One condition: the first key that differs from the marker's lies behind it.
    fn behind(
        &mut self,
        order: &Order<'_>,
        keys: &[SortKey],
        project: impl ToString + Copy,
        marker: &str,
    ) {
        if keys.iter().all(|key| key.descending == keys[0].descending) {
            // One comparison of rows, which an index answers.
            self.condition("(").columns(order, keys);
            self.push(if keys[0].descending { ") < " } else { ") > " });
            self.of_marker(order, keys, project, marker);
            return;
        }
        self.condition("(");
        for decides in 0..keys.len() {
            self.push(if decides > 0 { " OR (" } else { "(" });
            for (position, key) in keys.iter().take(decides + 1).enumerate() {
                self.push(if position > 0 { " AND " } else { "" });
                self.push_column(order, key);
                self.push(match (position == decides, key.descending) {
                    (false, _) => " = ",
                    (true, true) => " < ",
                    (true, false) => " > ",
                });
                self.of_marker(order, &[*key], project, marker);
            }
            self.push(")");
        }
        self.push(")");
    }

    /// The marker's values of the keys.
    fn of_marker(
        &mut self,
        order: &Order<'_>,
        keys: &[SortKey],
        project: impl ToString,
        marker: &str,
    ) {
        self.push("(SELECT ").columns(order, keys);
        self.push(" FROM ").push(order.table).push(" WHERE ");
        self.push(order.prefix).push("id = ").bind(marker);
        // Where another project's row stands in the order is not to be found out.
        let project = project.to_string();
        self.push(" AND (").push(order.prefix).push("project_id = ");
        self.bind(project.as_str());
        if order.shared {
            self.push(" OR id IN (SELECT backup_id FROM shares WHERE dest_project_id = ");
            self.bind(project.as_str()).push(")");
        }
        self.push("))");
    }

    fn columns(&mut self, order: &Order<'_>, keys: &[SortKey]) -> &mut Self {
        for (position, key) in keys.iter().enumerate() {
            self.push(if position > 0 { ", " } else { "" });
            self.push_column(order, key);
        }
        self
    }

    fn push_column(&mut self, order: &Order<'_>, key: &SortKey) -> &mut Self {
        // What is not there yet comes before everything that is.
        match key.column {
            "protected_at" => {
                self.push("COALESCE(").push(order.prefix);
                self.push(key.column).push(", 0)")
            }
            column => self.push(order.prefix).push(column),
        }
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

/// A row of which the id alone is wanted.
pub(crate) struct Id<T>(pub T);

impl<T: FromStr> FromRow for Id<T> {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self(row.parsed("id")?))
    }
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
