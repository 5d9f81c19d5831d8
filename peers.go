package main

import (
	"context"
	"errors"

	"sluice/admin"
	"sluice/cluster"
	"sluice/store"
)

// peers are the other gateways, in the words of those who ask for them: the door and the
// leases. They are there before the cluster is, which tells the others where the door is.
// A nil *peers is that of a node that is alone.
type peers struct {
	cluster clusterPart // set once, before the node runs
}

func newPeers(cfg *config) *peers {
	if !cfg.gossip.on() {
		return nil
	}
	return &peers{}
}

// Run takes part in the cluster until ctx is done.
func (p *peers) Run(ctx context.Context) error {
	if p == nil {
		<-ctx.Done()
		return nil
	}
	return p.cluster.Run(ctx)
}

// sayEnding tells the peers that this node is about to end, and wants no new clients.
func (p *peers) sayEnding() {
	if p != nil {
		p.cluster.SetDraining(true)
	}
}

// errNodeDrained is why a node is not ready that works and has been asked to take no new
// clients.
var errNodeDrained = errors.New("drained by sluice cluster drain; sluice cluster drain --undo ends that, and sluice audit says who it was")

func (p *peers) ready() error {
	if p != nil && p.cluster.Draining() {
		return errNodeDrained
	}
	return nil
}

// Problems are what an operator should know of the cluster, in sentences.
func (p *peers) Problems() []string {
	if p == nil {
		return nil
	}
	return p.cluster.Problems()
}

// SetDraining says whether this node wants no new clients.
func (p *peers) SetDraining(draining bool) { p.cluster.SetDraining(draining) }

// Draining tells what SetDraining has set.
func (p *peers) Draining() bool { return p.cluster.Draining() }

// Join adds peers by their addresses, or those that are known.
func (p *peers) Join(ctx context.Context, addresses []string) (answered int, err error) {
	return p.cluster.Join(ctx, addresses)
}

// Leave says goodbye, until Join.
func (p *peers) Leave(ctx context.Context) error { return p.cluster.Leave(ctx) }

// Steward is which node looks after the lease of a registration. While there is no
// cluster yet, it is who wrote it.
func (p *peers) Steward(id store.ID, writer string) string {
	if p.cluster == nil {
		return writer
	}
	return p.cluster.Steward(id, writer)
}

// Renew passes the renewal of a lease on to who looks after it.
func (p *peers) Renew(steward string, id store.ID) { p.cluster.Renew(steward, id) }

// Members are all gateways that are known, in the words of the door.
func (p *peers) Members() (told []admin.Member) {
	for _, m := range p.cluster.Members() {
		told = append(told, toldMember(m))
	}
	return told
}

func toldMember(m cluster.Member) admin.Member {
	told := admin.Member{
		ID: m.ID, Host: m.Host, Version: m.Version, Address: m.Address, Listen: m.Listen, Admin: m.Admin,
		Self: m.Self, State: admin.MemberState(m.State), Since: m.Since, Draining: m.Draining,
		Digest: m.Digest, Drift: m.Drift, DriftSince: m.DriftSince, Heard: m.Heard, Silent: m.Silent, RTT: m.RTT,
		UDPOut: admin.Reach(m.UDPOut), UDPIn: admin.Reach(m.UDPIn), TCPOut: admin.Reach(m.TCPOut), TCPIn: admin.Reach(m.TCPIn),
	}
	if !m.Revision.IsZero() {
		told.Revision = m.Revision.String()
	}
	if m.ClockKnown {
		told.Clock = &m.Clock
	}
	return told
}

// Confirm waits until every live peer obeys changes. Who dies meanwhile has not confirmed
// them, and is none of those that have.
func (p *peers) Confirm(ctx context.Context, changes []store.Change) admin.Confirmation {
	came := p.cluster.Confirm(ctx, changes)
	told := admin.Confirmation{Confirmed: len(came.Confirmed)}
	for _, u := range came.Unconfirmed {
		told.Unconfirmed = append(told.Unconfirmed, admin.Unconfirmed{Node: u.Member.ID, Host: u.Member.Host, Why: unconfirmedText(u.Err)})
	}
	return told
}

// unconfirmedText says why a peer has not confirmed a change.
func unconfirmedText(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time; sluice members tells how it is"
	}
	return err.Error()
}

// Keys are what keys each live member has.
func (p *peers) Keys(ctx context.Context) ([]admin.KeyAnswer, error) {
	return toldKeys(p.cluster.Keys(ctx)), nil
}

// AddKey has each live member know a key.
func (p *peers) AddKey(ctx context.Context, key string) ([]admin.KeyAnswer, error) {
	answers, err := p.cluster.AddKey(ctx, key)
	return toldKeys(answers), err
}

// UseKey has each live member send by a key.
func (p *peers) UseKey(ctx context.Context, key string) ([]admin.KeyAnswer, error) {
	answers, err := p.cluster.UseKey(ctx, key)
	return toldKeys(answers), err
}

// RemoveKey has each live member forget a key.
func (p *peers) RemoveKey(ctx context.Context, key string) ([]admin.KeyAnswer, error) {
	answers, err := p.cluster.RemoveKey(ctx, key)
	return toldKeys(answers), err
}

func toldKeys(answers []cluster.KeyAnswer) (told []admin.KeyAnswer) {
	for _, a := range answers {
		one := admin.KeyAnswer{Node: a.Member.ID, Host: a.Member.Host, Fingerprints: a.Keys, Warning: a.Warning}
		if a.Err != nil {
			one.Problem = a.Err.Error()
		}
		told = append(told, one)
	}
	return told
}
