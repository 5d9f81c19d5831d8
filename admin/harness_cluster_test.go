package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/store"
)

// fakeCluster is two peers that do what they are told.
type fakeCluster struct {
	mu          sync.Mutex // guards the fields below
	draining    bool
	asked       []string
	confirms    []store.Change // of the last Confirm
	unconfirmed []Unconfirmed
	patient     bool  // Confirm waits until its context is done
	fails       error // of what can fail
}

func (c *fakeCluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
}

// said is what was asked since the last time.
func (c *fakeCluster) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	said := strings.Join(c.asked, "; ")
	c.asked = nil
	return said
}

func (c *fakeCluster) Members() []Member {
	ahead := 20 * time.Millisecond
	return []Member{
		{ID: "aaaaaaaa", Host: "gw-1", Self: true, State: MemberAlive, Draining: c.Draining(), Version: "1.2.3"},
		{
			ID: "bbbbbbbb", Host: "gw-2", Version: "1.2.3", Address: "10.0.0.2:7946", Listen: "10.0.0.2:8080", Admin: "127.0.0.1:8081",
			State: MemberAlive, Since: time.Unix(1_777_908_600, 0), Digest: "6f1e", Revision: "1777908600000.0@bbbbbbbb",
			Drift: true, DriftSince: time.Unix(1_777_908_601, 0), Heard: time.Unix(1_777_908_602, 0),
			Clock: &ahead, RTT: time.Millisecond, UDPOut: ReachNo, UDPIn: ReachYes, TCPOut: ReachYes,
		},
		{ID: "cccccccc", Host: "gw-3", State: MemberDead},
		{ID: "dddddddd", Host: "gw-4", State: MemberLeft},
		{ID: "eeeeeeee", Host: "gw-5", State: MemberAlive, Draining: true},
	}
}

func (c *fakeCluster) Join(ctx context.Context, addresses []string) (int, error) {
	c.bounded(ctx)
	c.note("join %s", strings.Join(addresses, ","))
	if slices.Contains(addresses, "nobody") {
		return 0, nil
	}
	return len(addresses), c.fails
}

func (c *fakeCluster) Leave(ctx context.Context) error {
	c.bounded(ctx)
	c.note("leave")
	return c.fails
}

func (c *fakeCluster) SetDraining(draining bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = draining
}

func (c *fakeCluster) Draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

func (c *fakeCluster) Confirm(ctx context.Context, changes []store.Change) Confirmation {
	c.bounded(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.confirms = slices.Clone(changes)
	if c.patient {
		<-ctx.Done()
	}
	return Confirmation{Confirmed: 2 - len(c.unconfirmed), Unconfirmed: c.unconfirmed}
}

// confirmed are the objects that were to be confirmed last, with their revisions.
func (c *fakeCluster) confirmed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for i := range c.confirms {
		word := c.confirms[i].ID.String()
		if c.confirms[i].After == nil || c.confirms[i].After.Revision.IsZero() {
			word += " without a revision"
		} else if c.confirms[i].After.Deleted {
			word += " deleted"
		}
		all = append(all, word)
	}
	c.confirms = nil
	return strings.Join(all, "; ")
}

func (c *fakeCluster) keys() ([]KeyAnswer, error) {
	return []KeyAnswer{
		{Node: "aaaaaaaa", Host: "gw-1", Fingerprints: []string{"5d41", "7d79"}, Warning: "the file stays as it is"},
		{Node: "bbbbbbbb", Host: "gw-2", Problem: "no answer"},
	}, c.fails
}

func (c *fakeCluster) Keys(ctx context.Context) ([]KeyAnswer, error) {
	c.bounded(ctx)
	c.note("keys")
	return c.keys()
}

func (c *fakeCluster) AddKey(ctx context.Context, key string) ([]KeyAnswer, error) {
	c.bounded(ctx)
	c.note("add %s", key)
	return c.keys()
}

func (c *fakeCluster) UseKey(ctx context.Context, key string) ([]KeyAnswer, error) {
	c.bounded(ctx)
	c.note("use %s", key)
	return c.keys()
}

func (c *fakeCluster) RemoveKey(ctx context.Context, key string) ([]KeyAnswer, error) {
	c.bounded(ctx)
	c.note("remove %s", key)
	return c.keys()
}

func (c *fakeCluster) Problems() []string { return []string{"gw-3 is dead"} }

// bounded fails what has no deadline.
func (c *fakeCluster) bounded(ctx context.Context) {
	if _, bounded := ctx.Deadline(); !bounded {
		c.note("without a deadline")
	}
}

// clustered is a node with two peers.
type clustered struct {
	*testNode
	peers *fakeCluster
}

func startClustered(t *testing.T) *clustered {
	t.Helper()
	c := &clustered{peers: &fakeCluster{}}
	c.testNode = startNode(t, func(_ *Config, parts *Parts) {
		parts.Cluster = c.peers
		parts.Leases = store.NewLeases(parts.Store, store.LeaseOptions{})
	})
	return c
}

var errNobodyThere = errors.New("connection refused")
