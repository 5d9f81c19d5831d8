package admin

import (
	"context"
	"fmt"
	"time"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// confirmTime is how long an answer waits for the peers. Who lives answers much sooner;
// who is dead is known to be before that.
const confirmTime = 10 * time.Second

// change is what every request for a change says of itself.
type change interface {
	GetReason() string
	GetWait() adminv1.Wait
}

// checkWait refuses, before anything is done, what this version cannot wait for.
func checkWait(wait adminv1.Wait) error {
	if _, known := adminv1.Wait_name[int32(wait)]; !known {
		return store.Faults{{Field: "wait", Message: fmt.Sprintf("%d: want WAIT_LOCAL or WAIT_ALL", wait)}}
	}
	return nil
}

// confirm waits for the live peers, if a request asks for that. The answer is nil when it
// does not, or there is nothing to confirm. The change itself stands, whatever becomes of
// the wait.
func (a *api) confirm(ctx context.Context, wait adminv1.Wait, changes []store.Change) *adminv1.Confirmation {
	if wait != adminv1.Wait_WAIT_ALL || len(changes) == 0 {
		return nil
	}
	m := &adminv1.Confirmation{}
	if a.parts.Cluster == nil {
		return m
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	defer context.AfterFunc(a.closing, cancel)()
	came := a.parts.Cluster.Confirm(ctx, changes)
	m.Confirmed = uint32(came.Confirmed)
	for _, u := range came.Unconfirmed {
		m.Unconfirmed = append(m.Unconfirmed, &adminv1.Unconfirmed{Node: u.Node, Host: u.Host, Why: u.Why})
	}
	return m
}

// toConfirm are the changes of a write, and the objects that it left as they were: who
// says the same once more, because somebody had not confirmed it, asks for that.
func (a *api) toConfirm(result *store.Result) []store.Change {
	changes := append([]store.Change(nil), result.Changes...)
	snapshot := a.store.Snapshot()
	for _, id := range result.Unchanged {
		if o, found := snapshot.Get(id); found {
			changes = append(changes, store.Change{Seq: snapshot.Seq(), ID: id, After: o})
		}
	}
	return changes
}
