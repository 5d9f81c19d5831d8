package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// machines are those that a document speaks of: the one where its blocks are tried, and
// those with names, gw1 and on, each of which is a folder and an address of the loopback
// interface here. 10.0.0.11 is gw1.
type machines struct {
	here    *reader
	network string // of the addresses, with the dot at its end: another for each document
	named   map[string]*reader
}

var machineNames = []string{"gw1", "gw2", "gw3", "gw4"}

func newMachines(here *reader) *machines {
	network := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(250), rand.IntN(250))
	return &machines{here: here, network: network, named: map[string]*reader{}}
}

// of are the machines that a block is for.
func (m *machines) of(on string) []*reader {
	if on == "" {
		return []*reader{m.here}
	}
	if len(m.named) == 0 {
		for _, name := range machineNames {
			m.named[name] = m.build(name)
		}
	}
	if on == "all" {
		return []*reader{m.named["gw1"], m.named["gw2"], m.named["gw3"]}
	}
	if m.named[on] == nil {
		m.here.t.Fatalf("on=%s: want one of %v, or all", on, machineNames)
	}
	return []*reader{m.named[on]}
}

// build makes a machine: its files are in a folder of its own, and where a text has an
// address or a file of it, that is replaced.
func (m *machines) build(name string) *reader {
	m.here.t.Helper()
	root := func(name string) string { return filepath.Join(m.here.dir, name) }
	number := strings.TrimPrefix(name, "gw")
	ip := m.network + "1" + number
	for _, dir := range []string{"var/lib/sluice", "etc/sluice", "home"} {
		if err := os.MkdirAll(filepath.Join(root(name), dir), 0o700); err != nil {
			m.here.t.Fatal(err)
		}
	}
	r := &reader{t: m.here.t, dir: filepath.Join(root(name), "home"), tools: m.here.tools}
	pairs := []string{
		"10.0.0.21:50051", m.here.ports.Replace("127.0.0.1:50051"),
		"10.0.0.22:50051", m.here.ports.Replace("127.0.0.1:50052"),
		"10.0.0.", m.network,
		`":7946"`, `"` + ip + `:7946"`, "localhost:8080", ip + ":8080", "scp ", "cp ",
	}
	for _, other := range machineNames {
		pairs = append(pairs, other+":/", root(other)+"/")
	}
	for _, dir := range []string{"/var/lib/sluice", "/etc/sluice"} {
		pairs = append(pairs, dir, root(name)+dir)
	}
	r.ports = strings.NewReplacer(pairs...)
	r.env = append(slices.DeleteFunc(slices.Clone(m.here.env), func(v string) bool { return strings.HasPrefix(v, "SLUICE_") }),
		"SLUICE_CONFIG="+root(name)+"/etc/sluice/sluice.yaml", "SLUICE_DATA_DIR="+root(name)+"/var/lib/sluice",
		"SLUICE_LISTEN="+ip+":8080", "SLUICE_ADMIN="+ip+":8081")
	return r
}

// end stops what runs on any of them.
func (m *machines) end() {
	for _, name := range slices.Sorted(maps.Keys(m.named)) {
		m.named[name].end()
	}
	m.here.end()
}
