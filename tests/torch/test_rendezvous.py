"""How ranks meet through torch's store, and what that store gets to know; ranks are threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pycomm.errors import DeadlineExceeded

torch = pytest.importorskip("torch", reason="torch is not installed")

from pycomm.torch import rendezvous  # noqa: E402 (needs torch)
from pycomm.torch.rendezvous import TorchStore, meet  # noqa: E402 (as above)

pytestmark = pytest.mark.torch


def meet_all(store, size):
    with ThreadPoolExecutor(size) as ranks:
        met = [ranks.submit(meet, TorchStore(store), rank, size, 30.0) for rank in range(size)]
        return [future.result(timeout=60) for future in met]


def test_ranks_meet_at_a_store_of_their_own():
    met = meet_all(torch.distributed.HashStore(), 3)
    secrets = {secret for _, secret in met}
    assert len(secrets) == 1
    assert len(secrets.pop()) == 64
    met[0][0].set("word", b"known to all")
    assert [store.get("word", timeout_s=10) for store, _ in met] == [b"known to all"] * 3
    for store, _ in met:
        store.close()


@pytest.mark.parametrize("own", [True, False])
def test_a_secret_of_the_users_own_is_not_told(own, monkeypatch):
    if own:
        monkeypatch.setenv("PYCOMM_SECRET", "a secret of ours")
    outside = torch.distributed.HashStore()
    met = meet_all(outside, 2)
    told = outside.get("pycomm/meet")
    assert (met[0][1] == "a secret of ours") is own
    assert (met[0][1].encode() in told) is not own
    for store, _ in met:
        store.close()


def test_a_rank_that_does_not_come_is_waited_for_until_the_deadline():
    with pytest.raises(DeadlineExceeded, match="init_process_group"):
        meet(TorchStore(torch.distributed.HashStore()), 1, 2, 0.2)
    with pytest.raises(DeadlineExceeded, match="'host/1'"):
        meet(TorchStore(torch.distributed.HashStore()), 0, 2, 0.2)


def test_a_rank_0_that_cannot_be_reached_is_named(monkeypatch):
    store = torch.distributed.HashStore()
    store.set("pycomm/meet", b"\n".join([b"0" * 64, b"9", b"127.0.0.1"]))  # nobody listens at port 9
    with pytest.raises(DeadlineExceeded, match="set MASTER_ADDR") as raised:
        meet(TorchStore(store), 1, 2, 0.2)
    assert raised.value.ranks == (0,)


def test_several_hosts_meet_at_an_address_that_the_others_reach(monkeypatch):
    monkeypatch.setattr(rendezvous, "_own_addresses", lambda: ["127.0.0.1"])
    store = torch.distributed.HashStore()
    store.set("pycomm/host/1", b"another host")
    served, _ = meet(TorchStore(store), 0, 2, 10.0)
    assert served.host == "127.0.0.1"
    assert store.get("pycomm/meet").split(b"\n")[2:] == [b"127.0.0.1"]
    served.close()


def test_keys_go_once_every_rank_has_read_them():
    outside = torch.distributed.HashStore()
    stores = [TorchStore(outside) for _ in range(2)]
    stores[0].set("news", b"")
    stores[0].forget_after(2, ["news"], "read")
    assert outside.check(["pycomm/news"])
    stores[1].forget_after(2, ["news"], "read")
    assert not outside.check(["pycomm/news"])
    assert not outside.check(["pycomm/read"])
