package cluster

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

func TestConfigValidates(t *testing.T) {
	for _, test := range []struct {
		cfg  Config
		want string // empty: nothing is wrong
	}{
		{Config{Bind: "127.0.0.1"}, ""},
		{Config{Bind: "127.0.0.1:0", Join: []string{"a.example", "10.0.0.1:7947", "[fd00::1]:1", "fd00::2"}}, ""},
		{Config{Bind: "localhost:7946"}, ""},
		{Config{Bind: "[::1]:7946", Advertise: "::1"}, ""},
		{Config{Bind: ":7946", KeyFile: "k", Advertise: "192.0.2.1"}, ""},
		{Config{Bind: ":7946", Insecure: true, Advertise: "192.0.2.1:1"}, ""},
		{Config{Bind: ":7946"}, `gossip ":7946": reached from beyond this machine, and there is no gossip-key-file: whoever reaches it could join and change every route; make a key with sluice cluster keyring generate`},
		{Config{Bind: "10.0.0.1:7946"}, `gossip "10.0.0.1:7946": reached from beyond`},
		{Config{Bind: "127.0.0.1:7946", Advertise: "10.0.0.1"}, `gossip-advertise "10.0.0.1": reached from beyond`},
		{Config{Bind: "a.example:7946", KeyFile: "k"}, `gossip "a.example:7946": want an IP address`},
		{Config{Bind: "127.0.0.1:x"}, `gossip "127.0.0.1:x": want a port`},
		{Config{Bind: "127.0.0.1", Advertise: "a.example"}, `gossip-advertise "a.example": want one IP address`},
		{Config{Bind: "127.0.0.1", Advertise: "0.0.0.0"}, `gossip-advertise "0.0.0.0": want one IP address`},
		{Config{Bind: "127.0.0.1", Join: []string{"http://a"}}, `join "http://a"`},
		{Config{Bind: "127.0.0.1", Join: []string{"a:0"}}, `join "a:0": want a port of 1`},
		{Config{Bind: "127.0.0.1", Join: []string{""}}, `join "": want a host`},
		{Config{Bind: "127.0.0.1", Join: make([]string, maxJoin+1)}, "join: 101 addresses"},
		{Config{Bind: "127.0.0.1", Label: "a b"}, `gossip-label "a b"`},
		{Config{Bind: "127.0.0.1", Label: strings.Repeat("a", 256)}, "at most 255"},
	} {
		err := test.cfg.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: got %v, want %q", test.cfg, err, test.want)
		}
	}
}

func TestConfigHasAPortUnlessItIsSaid(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:7946", "": "[::]:7946", ":1": "[::]:1", "[::1]": "[::1]:7946", "::1": "[::1]:7946", "10.0.0.1:0": "10.0.0.1:0",
	} {
		if got, err := parseBind(text); err != nil || got.String() != want {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}

func TestAdvertisedAddressIsFoundOut(t *testing.T) {
	for _, test := range []struct{ bind, machine, want, failure, says string }{
		{"10.1.2.3", "", "10.1.2.3", "", ""},
		{"::", "127.0.0.1 ::1 10.1.2.3 fe80::1", "10.1.2.3", "", ""},
		{"::", "127.0.0.1 fd00::5 192.168.1.7 10.1.2.3", "192.168.1.7", "", "several addresses"},
		{"::", "fd00::5", "fd00::5", "", ""},
		{"0.0.0.0", "fd00::5", "", "say it with gossip-advertise", ""},
		{"::", "127.0.0.1 192.0.2.1", "", "(others: 192.0.2.1); say it with gossip-advertise", ""},
		{"::", "127.0.0.1", "", "(others: none)", ""},
	} {
		var machine []netip.Addr
		for _, text := range strings.Fields(test.machine) {
			machine = append(machine, netip.MustParseAddr(text))
		}
		var said lines
		got, err := findAdvertise(netip.MustParseAddr(test.bind), machine, slog.New(slog.NewTextHandler(&said, nil)))
		switch {
		case test.failure != "":
			if err == nil || !strings.Contains(err.Error(), test.failure) {
				t.Errorf("%+v: got %v", test, err)
			}
		case err != nil || got.String() != test.want:
			t.Errorf("%+v: got %s, %v", test, got, err)
		}
		if text := said.String(); test.says == "" && text != "" || !strings.Contains(text, test.says) {
			t.Errorf("%+v: log %q", test, text)
		}
	}
}
