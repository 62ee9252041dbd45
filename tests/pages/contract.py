"""The test ids that people script the product with: each stands on its page, once."""

from __future__ import annotations

from playwright.async_api import Page

from backend.states import ClaimStatus, OperationStatus, VmStatus

# By state of a page (see states.py): the ids that must be there.
CONTRACT = {
    "home-wrong-code": "join-code join-submit",
    "join-taken": "claim-email claim-submit claim-error",
    "join-code": "claim-email claim-code claim-submit claim-error",
    "seat-waiting": "seat-hostname seat-status seat-position seat-release",
    "seat-crd-ready": "seat-hostname seat-status seat-connect seat-release "
    "crd-open crd-paste crd-submit crd-pin crd-link crd-error",
    "seat-terminal": "seat-hostname seat-status seat-connect seat-release seat-key seat-terminal",
    "login-error": "login-user login-password login-submit login-error",
    "admin": " ".join(f"count-{status}" for status in VmStatus if status is not VmStatus.DESTROYED),
    "launch-error": "launch-pool launch-count launch-submit launch-error",
    "machines-selected": "vm-genomics-001 vm-action-release vm-action-reboot vm-action-repair vm-action-destroy",
    "machines-dialog": "confirm-submit confirm-cancel",
    "machine-in-use": "vm-action-release vm-action-reboot vm-action-destroy",
    "operation-running": "operation-status operation-log operation-cancel",
}
# Elements that carry the state's own word.
STATES = {
    "seat-waiting": ("seat-status", ClaimStatus.WAITING),
    "seat-terminal": ("seat-status", ClaimStatus.ACTIVE),
    "machines-selected": ("vm-genomics-001", VmStatus.IN_USE),
    "operation-running": ("operation-status", OperationStatus.RUNNING),
}


async def find_missing(page: Page, name: str) -> list[str]:
    """What the contract asks of a page in this state, and is not there once or says another state."""
    ids = CONTRACT.get(name, "").split()
    missing = [f"{each} is not there once" for each in ids if await page.get_by_test_id(each).count() != 1]
    if name in STATES:
        testid, status = STATES[name]
        found = await page.get_by_test_id(testid).get_attribute("data-status")
        missing += [f"{testid} says {found}"] if found != status else []
    return missing
