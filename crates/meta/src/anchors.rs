//! Where the pages of a project's long list of backups begin.
//!
//! A page by offset has the database pass over all rows before it. For the
//! plain list of a project's backups, every [`STEP`]th row is remembered, counted
//! from the oldest: there, new rows come behind all others and move none. What
//! does move them, a removal or a row that comes between, changes the number of
//! changes that the catalogue keeps with the number of rows, in the same
//! transaction; what was remembered before is then forgotten. So the memory may
//! be old, but never wrong, whoever else writes to the catalogue.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cairn_types::ProjectId;
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, text};
use crate::{Page, Result, Tx};

/// Rows between two that are remembered.
const STEP: u64 = 512;
/// Projects whose rows are remembered; beyond them, all are forgotten.
const MAX_PROJECTS: usize = 1024;

/// A row's place in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    created_at: i64,
    id: String,
}

impl FromRow for Place {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            created_at: row.integer("created_at")?,
            id: row.text("id")?,
        })
    }
}

/// How many backups a project has, and how often older ones than the newest changed place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) backups: u64,
    changes: i64,
}

impl FromRow for Count {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            backups: row.unsigned("backups")?,
            changes: row.integer("changes")?,
        })
    }
}

/// What is remembered of all projects.
#[derive(Debug, Default)]
pub(crate) struct Anchors(Mutex<HashMap<ProjectId, Known>>);

#[derive(Debug, Default)]
struct Known {
    changes: i64,
    /// The rows number 0, `STEP`, 2 `STEP`, … from the oldest.
    places: Vec<Place>,
}

impl Anchors {
    /// The highest remembered row up to number `wanted`, in steps.
    fn up_to(&self, project: ProjectId, changes: i64, wanted: usize) -> Option<(usize, Place)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known
            .get(&project)
            .filter(|known| known.changes == changes)?;
        let last = known.places.len().checked_sub(1)?.min(wanted);
        Some((last, known.places[last].clone()))
    }

    fn remember(&self, project: ProjectId, changes: i64, number: usize, place: Place) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_PROJECTS && !all.contains_key(&project) {
            all.clear();
        }
        let known = all.entry(project).or_default();
        if known.changes != changes {
            known.places.clear();
            known.changes = changes;
        }
        // Somebody else may have been faster.
        if known.places.len() == number {
            known.places.push(place);
        }
    }
}

impl Tx {
    /// How many backups a project has, those of single disks not counted.
    pub(crate) async fn backup_count(&mut self, project: ProjectId) -> Result<Count> {
        let mut statement = Statement::new("SELECT backups, changes FROM backup_counts");
        statement.equals("project_id", Some(project));
        Ok(statement.one(self).await?.unwrap_or_default())
    }

    /// Where to begin the newest-first list of all of a project's backups
    /// instead of at its newest, and how many rows to pass over from there;
    /// nothing where the beginning is near enough.
    pub(crate) async fn near_offset(
        &mut self,
        project: ProjectId,
        count: Count,
        page: &Page,
    ) -> Result<Option<(Place, u64)>> {
        if page.marker.is_some() || page.offset < STEP || page.offset >= count.backups {
            return Ok(None);
        }
        // The page's first row, counted from the oldest, and the next step at or above it.
        let first = count.backups - 1 - page.offset;
        let step = first.div_ceil(STEP);
        if step * STEP >= count.backups {
            return Ok(None);
        }
        let wanted = usize::try_from(step).unwrap_or(usize::MAX);
        let place = self.step_of(project, count.changes, wanted).await?;
        Ok(place.map(|place| (place, step * STEP - first)))
    }

    /// The row number `wanted`, in steps from the oldest: remembered, or found
    /// step by step from the last that is.
    async fn step_of(
        &mut self,
        project: ProjectId,
        changes: i64,
        wanted: usize,
    ) -> Result<Option<Place>> {
        let anchors = std::sync::Arc::clone(self.anchors());
        let mut known = anchors.up_to(project, changes, wanted);
        loop {
            let (number, place) = match known {
                Some((number, place)) if number == wanted => return Ok(Some(place)),
                Some((number, place)) => {
                    (number + 1, self.place_behind(project, Some(&place)).await?)
                }
                None => (0, self.place_behind(project, None).await?),
            };
            let Some(place) = place else {
                return Ok(None);
            };
            anchors.remember(project, changes, number, place.clone());
            known = Some((number, place));
        }
    }

    /// The row one step newer than this one, or the oldest of all.
    async fn place_behind(
        &mut self,
        project: ProjectId,
        place: Option<&Place>,
    ) -> Result<Option<Place>> {
        let mut statement = Statement::new("SELECT created_at, id FROM backups");
        statement
            .equals("project_id", Some(project))
            .condition("parent_id IS NULL");
        if let Some(place) = place {
            statement.condition("(created_at, id) >= (");
            statement.bind(place.created_at).push(", ");
            statement.bind(text(&place.id)).push(")");
        }
        let offset = if place.is_some() { STEP } else { 0 };
        let one = Page {
            limit: 1,
            offset,
            marker: None,
        };
        statement.push(" ORDER BY created_at, id").page(&one);
        statement.one(self).await
    }
}

impl Statement {
    /// From this row on, in a list with the newest first.
    pub(crate) fn beginning_at(&mut self, place: &Place) -> &mut Self {
        self.condition("(created_at, id) <= (")
            .bind(place.created_at);
        self.push(", ").bind(text(&place.id)).push(")")
    }
}
