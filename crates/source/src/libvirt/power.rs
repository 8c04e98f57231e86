//! Turning domains off and on, for restores in place.

use std::sync::Arc;

use cairn_types::ResourceId;

use super::virsh::{Result, VirshError};
use super::{Host, domain::Domain};
use crate::Error;
use crate::guest::{Guests, PoweredOff};

impl Host {
    /// Ends a domain at once: what is on its disks is about to be overwritten, so it
    /// need not write anything more. Memory that was saved goes too: it would not fit to the disks.
    ///
    /// Errors: `NotFound`; `Conflict` it is being backed up; `Invalid` it would be gone; `Transient`
    /// libvirt does not answer, or said no.
    pub(crate) fn power_off(
        &self,
        guests: &Arc<Guests>,
        server: ResourceId,
    ) -> crate::Result<PoweredOff> {
        let domain = self.look(server)?;
        let name = || domain.name.clone();
        let turn = guests.take(super::key(&domain));
        let _turn = turn.ok_or_else(|| Error::GuestBusy { server: name() })?;
        let transient = self.is_among(&domain, "--transient");
        if transient.map_err(|error| self.error(error))? {
            return Err(Error::NotDefined { server: name() });
        }
        let ended = self.end(&domain);
        ended.map_err(|error| self.error(error))?;
        Ok(PoweredOff {
            was_running: domain.is_active,
        })
    }

    fn end(&self, domain: &Domain) -> Result<()> {
        let uuid = domain.uuid.to_string();
        match self.virsh.tell(&["destroy", &uuid]) {
            Err(error) if is_off(&error) => {}
            ended => drop(ended?),
        }
        if self.is_saved(domain)? {
            self.virsh.tell(&["managedsave-remove", &uuid])?;
        }
        Ok(())
    }

    /// Whether a domain runs.
    ///
    /// Errors: `NotFound`; `Transient` libvirt does not answer.
    pub(crate) fn runs(&self, server: ResourceId) -> crate::Result<bool> {
        Ok(self.look(server)?.is_active)
    }

    /// Starts a domain; one that runs already is left alone.
    ///
    /// Errors: `NotFound`; `Transient` libvirt does not answer, or said no.
    pub(crate) fn power_on(&self, server: ResourceId) -> crate::Result<()> {
        let domain = self.look(server)?;
        if domain.is_active {
            return Ok(());
        }
        let started = self.virsh.tell(&["start", &domain.uuid.to_string()]);
        started.map(drop).map_err(|error| self.error(error))
    }

    /// Whether the memory of a domain that is off is saved, for its next start.
    pub(super) fn is_saved(&self, domain: &Domain) -> Result<bool> {
        self.is_among(domain, "--with-managed-save")
    }

    /// Whether a domain is among those that libvirt lists by this option.
    fn is_among(&self, domain: &Domain, which: &str) -> Result<bool> {
        let listed = self.virsh.ask(&["list", "--all", which, "--uuid"])?;
        let uuid = domain.uuid.to_string();
        Ok(listed.lines().any(|line| line.trim() == uuid))
    }
}

/// Whether libvirt refused because the domain is off already.
fn is_off(error: &VirshError) -> bool {
    error
        .refusal()
        .is_some_and(|text| text.contains("domain is not running"))
}
