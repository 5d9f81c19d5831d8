package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"sluice/cluster"
	"sluice/store"
)

// clusterPart is what the node needs of the cluster.
type clusterPart interface {
	// Run takes part until ctx is done, then says goodbye.
	Run(ctx context.Context) error
	// Members are all that are known, this node included.
	Members() []cluster.Member
	// Join adds peers, and ends the solitude after Leave.
	Join(ctx context.Context, addresses []string) (answered int, err error)
	// Leave says goodbye; the node stays alone, also after a restart, until Join.
	Leave(ctx context.Context) error
	// SetDraining tells the peers whether this node wants no new clients; Draining tells
	// what was set.
	SetDraining(draining bool)
	Draining() bool
	// Confirm waits until every live member obeys these changes, and tells who has said so
	// and who has not.
	Confirm(ctx context.Context, changes []store.Change) cluster.Confirmation
	// Observe tells the peers what this gateway has seen of endpoints.
	Observe(hints []cluster.Hint)
	// Steward is which live node looks after the lease of a registration; Renew passes a
	// renewal on to it.
	Steward(id store.ID, writer string) string
	Renew(steward string, id store.ID)
	// Keys are the answers of all live members to what keys they have; the others change
	// them everywhere.
	Keys(ctx context.Context) []cluster.KeyAnswer
	AddKey(ctx context.Context, key string) ([]cluster.KeyAnswer, error)
	UseKey(ctx context.Context, key string) ([]cluster.KeyAnswer, error)
	RemoveKey(ctx context.Context, key string) ([]cluster.KeyAnswer, error)
	// Problems are what an operator should know, Stats the counters for metrics.
	Problems() []string
	Stats() cluster.Stats
}

// newCluster opens the sockets of gossip, and joins nobody yet.
var newCluster = func(cfg cluster.Config, parts cluster.Parts, log *slog.Logger) (clusterPart, error) {
	return cluster.New(cfg, parts, log)
}

// openCluster opens what the node shares with the other gateways: who of them lives, and
// what all of them have been told. A node that is alone has none.
func (n *node) openCluster() error {
	if n.peers == nil {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find this machine's name: %w", err)
	}
	n.peers.cluster, err = newCluster(
		n.cfg.clusterConfig(host, n.gateway.Addr().String(), n.door.Addr().String()),
		cluster.Parts{
			Store: n.store, InForce: n.applier.Obeys,
			Renewed: n.leases.Renewed,
			Hint:    func(h cluster.Hint) { n.gateway.Hint(h.Backend, h.Address, h.Down) },
			Peers:   n.countPeers,
		},
		n.log.With("part", "cluster"))
	if err != nil {
		return explainListen(err, "--gossip", n.cfg.gossip.address())
	}
	n.gateway.ShowMetrics(clusterMetrics{n.peers})
	return nil
}

// countPeers is told when other gateways live than before: they share the limits of the
// cluster, and leases pass from those who are gone to those who are there.
func (n *node) countPeers(sharing int) {
	n.gateway.SetPeers(sharing)
	n.leases.Reconsider()
}

// observe tells the peers what this gateway sees of endpoints, until ctx is done.
func (n *node) observe(ctx context.Context) error {
	for n.peers != nil && ctx.Err() == nil {
		var hints []cluster.Hint
		for _, o := range n.gateway.Observations(ctx) {
			hints = append(hints, cluster.Hint{Node: n.store.Node(), Backend: o.Backend, Address: o.Address, Down: o.Down})
		}
		n.peers.cluster.Observe(hints)
	}
	return nil
}
