package cluster

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"sluice/store"
)

// Pods that come and go with empty disks leave room for others: whoever is gone the
// longest is forgotten, and nobody who lives.
func TestMembershipForgetsTheLongestGoneForNewcomers(t *testing.T) {
	begin := time.Now()
	m := &membership{members: map[string]*member{}}
	for i := range maxMembers {
		m.members[fmt.Sprint("n", i)] = &member{state: Left, since: begin.Add(time.Duration(i) * time.Second)}
	}
	m.members["n0"].state = Alive
	if !m.hasRoomFor("new") || len(m.members) != maxMembers-1 || m.members["n1"] != nil || m.members["n0"] == nil {
		t.Errorf("%d members are left, n0 %v, n1 %v", len(m.members), m.members["n0"], m.members["n1"])
	}
	for _, n := range m.members {
		n.state = Alive
	}
	m.members["new"] = &member{state: Alive}
	if m.hasRoomFor("another") || !m.hasRoomFor("n0") {
		t.Error("live members make room, or have none")
	}
}

// A machine that was replaced at its address is not looked for, nor shown as dead, for a
// day.
func TestMembershipForgetsWhoWasReplacedAtItsAddress(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	now := begin
	at := func(last byte) memberlist.Node { return memberlist.Node{Addr: []byte{10, 0, 0, last}, Port: 7946} }
	m := &membership{
		parts: Parts{Now: func() time.Time { return now }}, log: slog.New(slog.DiscardHandler), changed: make(chan struct{}, 1),
		members: map[string]*member{
			"old": {state: Dead, since: begin, node: at(3)},
			"new": {state: Alive, since: begin, node: at(3)},
			"off": {state: Dead, since: begin, node: at(4)},
		},
	}
	m.forget()
	if len(m.members) != 3 {
		t.Errorf("%d are left at once, want 3", len(m.members))
	}
	now = begin.Add(replacedAfter + time.Second)
	m.forget()
	if m.members["old"] != nil || m.members["new"] == nil || m.members["off"] == nil {
		t.Errorf("left are %v", slices.Sorted(maps.Keys(m.members)))
	}
}

func TestMemberIsSilentAfterTwoRoundsOfBeats(t *testing.T) {
	for peers, want := range map[int]time.Duration{0: 5 * time.Second, 2: 5 * time.Second, 9: 19 * time.Second, 49: 35 * time.Second} {
		if got := silentAfter(peers); got != want {
			t.Errorf("of %d peers one is silent after %s, want %s", peers, got, want)
		}
	}
	now := time.Unix(1_000_000, 0)
	for name, tc := range map[string]struct {
		m    Member
		want time.Duration
	}{
		"heard":         {Member{State: Alive, Since: now.Add(-time.Hour), Heard: now.Add(-9 * time.Second)}, 9 * time.Second},
		"never heard":   {Member{State: Alive, Since: now.Add(-7 * time.Second)}, 7 * time.Second},
		"has come back": {Member{State: Alive, Since: now.Add(-time.Second), Heard: now.Add(-time.Hour)}, time.Second},
		"dead":          {Member{State: Dead, Since: now, Heard: now.Add(-time.Hour)}, 0},
		"itself":        {Member{State: Alive, Self: true}, 0},
	} {
		if got := tc.m.silence(now); got != tc.want {
			t.Errorf("%s: silent for %s, want %s", name, got, tc.want)
		}
	}
}

// In a quiet cluster nobody is silent, not even at the size at which a round of beats takes
// the longest.
func TestClusterAtRestHasNobodySilent(t *testing.T) {
	sim := openSimulation(t, beatTurn+1)
	sim.run(30 * time.Second)
	worst := time.Duration(0)
	for range 100 {
		sim.run(time.Second)
		for _, n := range sim.nodes {
			for _, id := range n.live {
				worst = max(worst, n.wall().Sub(n.exchange.facts(id).Heard))
			}
		}
	}
	if limit := silentAfter(beatTurn); worst > limit {
		t.Errorf("somebody was not heard of for %s, limit %s", worst, limit)
	}
	t.Logf("the longest silence was %s", worst)
}

func TestConflictLogKeepsAPace(t *testing.T) {
	var text lines
	l := conflictLog{log: slog.New(slog.NewTextHandler(&text, nil))}
	now := time.Unix(1000, 0)
	change := store.Change{
		ID:    store.ID{Kind: "Backend", Namespace: "default", Name: "b"},
		After: &store.Object{Revision: store.Revision{Wall: 2, Node: "aaaaaaaa"}},
		Lost:  &store.Object{Revision: store.Revision{Wall: 1, Node: "bbbbbbbb"}},
	}
	for range 100 {
		l.add(change, now)
	}
	if n := strings.Count(text.String(), "\n"); n != maxConflictLines || !strings.Contains(text.String(), "object=\"Backend default/b\" holds=2.0@aaaaaaaa lost=1.0@bbbbbbbb") {
		t.Errorf("%d lines:\n%s", n, text.String())
	}
	l.tick(now.Add(conflictPace))
	l.tick(now.Add(3 * conflictPace))
	if n := strings.Count(text.String(), "\n"); n != maxConflictLines+1 || !strings.Contains(text.String(), "count=90") {
		t.Errorf("%d lines:\n%s", n, text.String())
	}
}

// Who is not there when the keys change is named: it would be locked out.
func TestKeyChangeNamesWhoIsNotThere(t *testing.T) {
	m := &membership{self: "self", parts: Parts{Now: time.Now}, running: true, members: map[string]*member{
		"alive": {state: Alive}, "dead": {state: Dead}, "died": {state: Dead}, "left": {state: Left},
	}}
	c := &Cluster{membership: m}
	var told []string
	for _, a := range c.withAbsent([]KeyAnswer{{Member: Member{ID: "self"}}, {Member: Member{ID: "died"}, Err: errGone}}) {
		told = append(told, a.Member.ID+" "+a.Warning)
	}
	want := []string{"self ", "died ", "dead dead: it needs the new key file before it comes back", "left left: it needs the new key file before it comes back"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
