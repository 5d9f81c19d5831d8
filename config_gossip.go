package main

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

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

	maxGossipLabel = 255 // bytes, as memberlist has it
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

// validate calls fault for everything that is wrong with c.
func (c *gossipConfig) validate(fault func(format string, args ...any)) {
	if !c.on() {
		c.validateOff(fault)
		return
	}
	if !isHostPort(c.address()) {
		fault("gossip %q: want host:port or :port", c.bind)
	} else if c.keyFile == "" && !c.insecure && !isLoopback(c.address()) {
		fault("gossip %q: without gossip-key-file, gossip stays on loopback; make a key with sluice cluster keyring generate, or say gossip-insecure", c.address())
	}
	c.validateAdvertise(fault)
	for _, peer := range c.join {
		if !isPeer(peer) {
			fault("join %q: want a host, or host:port", peer)
		}
	}
	if len(c.label) > maxGossipLabel || strings.ContainsFunc(c.label, func(r rune) bool { return r <= ' ' || r > '~' }) {
		fault("gossip-label %q: want a word of at most %d printable characters", c.label, maxGossipLabel)
	}
}

// validateOff finds what says something of gossip when there is none.
func (c *gossipConfig) validateOff(fault func(format string, args ...any)) {
	for _, set := range []struct{ name, value string }{{"gossip-advertise", c.advertise}, {"gossip-key-file", c.keyFile}} {
		if set.value != "" {
			fault("%s %q: needs gossip or join", set.name, set.value)
		}
	}
	if c.insecure {
		fault("gossip-insecure: needs gossip or join")
	}
}

func (c *gossipConfig) validateAdvertise(fault func(format string, args ...any)) {
	if c.advertise == "" {
		return
	}
	addr, err := netip.ParseAddr(c.advertise)
	if err != nil {
		at, portErr := netip.ParseAddrPort(c.advertise)
		addr, err = at.Addr(), portErr
	}
	switch {
	case err != nil || addr.IsUnspecified():
		fault("gossip-advertise %q: want an IP address of this node, or IP:port", c.advertise)
	case c.keyFile == "" && !c.insecure && !addr.IsLoopback():
		fault("gossip-advertise %q: without gossip-key-file, gossip stays on loopback", c.advertise)
	}
}

// isHostPort tells whether s is host:port or :port.
func isHostPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// isLoopback tells whether a listener at host:port is reached from this machine only.
func isLoopback(s string) bool {
	host, _, _ := net.SplitHostPort(s)
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// isPeer tells whether s is a host, with or without a port.
func isPeer(s string) bool {
	if s == "" || strings.ContainsAny(s, " /") {
		return false
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil || !strings.Contains(s, ":") {
		return true
	}
	host, _, _ := net.SplitHostPort(s)
	return host != "" && isHostPort(s)
}

// clusterConfig is what the cluster is told; admin and listen are the addresses in use.
func (c *config) clusterConfig(host, listen, admin string) cluster.Config {
	return cluster.Config{
		Bind: c.gossip.address(), Advertise: c.gossip.advertise, Join: c.gossip.join,
		KeyFile: c.gossip.keyFile, Insecure: c.gossip.insecure, Label: c.gossip.label,
		Host: host, Version: version, Listen: listen, Admin: admin,
	}
}
