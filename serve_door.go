package main

import (
	"slices"
	"time"

	"sluice/admin"
)

// openDoor opens the operator's door: the admin API, health, metrics, profiles.
func (n *node) openDoor() error {
	cfg, log := n.cfg, n.log.With("part", "admin")
	parts := admin.Parts{
		Ready: n.ready, Metrics: n.gateway.Metrics(), Version: version,
		Store: n.store, Gateway: n.applier, Leases: n.leases, Problems: n.problems, Port: newDoor(log),
	}
	if n.peers != nil {
		parts.Cluster = n.peers
	}
	door, err := admin.New(admin.Config{
		Listen: cfg.admin, Pprof: cfg.pprof, DataDir: cfg.dataDir, Hosts: cfg.adminHosts,
		TLSCert: cfg.adminTLSCert, TLSKey: cfg.adminTLSKey, PasswordFile: cfg.adminPassword,
	}, parts, log)
	if err != nil {
		return explainListen(err, "--admin", cfg.admin)
	}
	n.door = door
	n.gateway.OwnPort(door.Addr()) // what only this machine may reach is published by no endpoint
	return nil
}

// ready is nil when new clients are welcome, and else says why not.
func (n *node) ready() error {
	if err := n.gateway.Ready(); err != nil {
		return err
	}
	return n.peers.ready()
}

// problems are what is wrong with the node, beside what its parts say themselves.
func (n *node) problems() []string {
	return slices.Concat(n.resources.Problems(), n.peers.Problems(), n.orphanProblems())
}

// invite says, while there is no administrator, how the first one is made. The
// command line on this machine needs none.
func (n *node) invite() error {
	access := n.door.Access()
	needed, err := access.NeedsSetUp()
	if err != nil || !needed {
		return err
	}
	link, err := access.SetUpLink()
	if err != nil {
		return err
	}
	for _, url := range link.URLs {
		n.log.Info("no administrator yet: open this link once, or run sluice admin create NAME", "link", url, "expires", link.Expires.UTC().Format(time.RFC3339))
	}
	if link.Hint != "" {
		n.log.Info("from another machine", "first", link.Hint)
	}
	return nil
}
