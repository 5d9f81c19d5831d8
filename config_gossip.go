package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"sluice/cluster"
)

// gossipConfig is how the node takes part in a cluster. The zero value is a node that is
// alone, and opens nothing.
type gossipConfig struct {
	// bind is where gossip listens, UDP and TCP; empty means defaultGossip when there is
	// somebody to join, and else no gossip at all. Port 0 takes a free one.
	bind string

	// advertise is where peers reach the node, when that is another address.
	advertise string

	// join are peers, host or host:port; a name may stand for several of them.
	join []string

	// keyFile has the keys that encrypt gossip; insecure does without, off loopback.
	keyFile  string
	insecure bool

	// label keeps clusters apart that could reach each other.
	label string
}

const (
	defaultGossip      = ":7946"
	defaultGossipLabel = "sluice"
)

func (c *gossipConfig) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.bind, "gossip", "", "`address` of gossip, UDP and TCP; none means that the node is alone")
	fs.StringVar(&c.advertise, "gossip-advertise", "", "`address` at which peers reach the node, IP or IP:port, when it is another")
	fs.StringSliceVar(&c.join, "join", nil, "`addresses` of peers; alone it turns gossip on at "+defaultGossip+"; may be repeated")
	fs.StringVar(&c.keyFile, "gossip-key-file", "", "`file` with the keys that encrypt gossip, one in a line")
	fs.StringVar(&c.label, "gossip-label", defaultGossipLabel, "`name` of the cluster; nodes of another are not heard")
	fs.BoolVar(&c.insecure, "gossip-insecure", false, "let gossip leave loopback without a key")
}

// on tells whether the node takes part in a cluster.
func (c *gossipConfig) on() bool { return c.bind != "" || len(c.join) > 0 }

// address is where gossip listens.
func (c *gossipConfig) address() string {
	if c.bind == "" {
		return defaultGossip
	}
	return c.bind
}

// validateGossip tells everything that is wrong with what c says of gossip.
func (c *config) validateGossip() error {
	if c.gossip.on() {
		err := c.clusterConfig("", "", "").Validate()
		if err != nil && c.gossip.bind == "" {
			return fmt.Errorf("%w (join turned gossip on, at %s)", err, defaultGossip)
		}
		return err
	}
	var errs []error
	for _, set := range []struct{ name, value string }{{"gossip-advertise", c.gossip.advertise}, {"gossip-key-file", c.gossip.keyFile}} {
		if set.value != "" {
			errs = append(errs, fmt.Errorf("%s %q: needs gossip or join", set.name, set.value))
		}
	}
	if c.gossip.insecure {
		errs = append(errs, errors.New("gossip-insecure: needs gossip or join"))
	}
	return errors.Join(errs...)
}

// clusterConfig is what the cluster is told; admin and listen are the addresses in use.
func (c *config) clusterConfig(host, listen, admin string) cluster.Config {
	return cluster.Config{
		Bind: c.gossip.address(), Advertise: c.gossip.advertise, Join: c.gossip.join,
		KeyFile: c.gossip.keyFile, Insecure: c.gossip.insecure, Label: c.gossip.label,
		Host: host, Version: version, Listen: listen, Admin: admin,
	}
}
