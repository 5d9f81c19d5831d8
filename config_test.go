package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// parse resolves a command line, an environment and the text of a
// configuration file as serve does.
func parse(t *testing.T, args []string, env map[string]string, file string) (config, error) {
	t.Helper()
	var cfg config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	flags.String("config", filepath.Join(t.TempDir(), "none.yaml"), "")
	cfg.addFlags(flags)
	if file != "" {
		name := filepath.Join(t.TempDir(), "sluice.yaml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", name)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := resolve(flags, func(name string) string { return env[name] }); err != nil {
		return cfg, err
	}
	return cfg, cfg.validate()
}

func TestConfigHasDefaults(t *testing.T) {
	got, err := parse(t, []string{"--data-dir", "d"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		dataDir: "d", listen: ":8080", admin: "127.0.0.1:8081", grace: 30 * time.Second, logFormat: "text",
		gossip: gossipConfig{label: "sluice"},
	}
	// The empty lists are pflag's own, not nil.
	got.resources, got.trustedProxies, got.gossip.join = nil, nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestConfigTakesTheNearestSource(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  map[string]string
		file string
		want string
	}{
		{"default", nil, nil, "", ":8080"},
		{"file", nil, nil, `listen: ":1"`, ":1"},
		{"environment over file", nil, map[string]string{"SLUICE_LISTEN": ":2"}, `listen: ":1"`, ":2"},
		{"flag over both", []string{"--listen", ":3"}, map[string]string{"SLUICE_LISTEN": ":2"}, `listen: ":1"`, ":3"},
		{"flag that says the default", []string{"--listen", ":8080"}, nil, `listen: ":1"`, ":8080"},
	}
	for _, test := range tests {
		got, err := parse(t, test.args, test.env, test.file)
		if err != nil || got.listen != test.want {
			t.Errorf("%s: listen %q, error %v, want %q", test.name, got.listen, err, test.want)
		}
	}
}

// everySetting gives each setting a value that is not its default.
var everySetting = map[string]string{
	"data-dir": "/d", "listen": ":1", "admin": ":2", "resources": "a.yaml,b", "allow-unresolved": "true",
	"tls-cert": "c", "tls-key": "k", "tls-client-ca": "ca", "grace": "1s", "drain-delay": "2s",
	"max-connection-age": "1h", "max-connection-age-grace": "1m",
	"proxy-protocol": "true", "trusted-proxies": "10.0.0.0/8,192.0.2.1", "trusted-hops": "1",
	"zone": "a", "pprof": "true", "log-format": "json",
	"gossip": ":3", "gossip-advertise": "192.0.2.1:7", "join": "a.example.com,192.0.2.2:7946", "gossip-key-file": "g",
	"gossip-label": "l", "gossip-insecure": "true",
	"admin-tls-cert": "ac", "admin-tls-key": "ak", "admin-hosts": "a.example.com,b", "admin-password-file": "p",
}

func TestConfigTakesEverySettingFromEverySource(t *testing.T) {
	var args, lines []string
	env := map[string]string{}
	for name, value := range everySetting {
		args = append(args, "--"+name+"="+value)
		env[envName(name)] = value
		if strings.Contains(value, ",") {
			value = "[" + value + "]"
		}
		lines = append(lines, name+": "+value)
	}
	fromFlags, err := parse(t, args, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	fromEnv, err := parse(t, nil, env, "")
	if err != nil {
		t.Fatal(err)
	}
	fromFile, err := parse(t, nil, nil, strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(fromFlags, fromEnv) || !reflect.DeepEqual(fromFlags, fromFile) {
		t.Errorf("flags %+v\nenvironment %+v\nfile %+v\nwant them equal", fromFlags, fromEnv, fromFile)
	}
	if got := len(fromFlags.trusted()); got != 2 {
		t.Errorf("%d trusted networks, want 2", got)
	}

	var cfg config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	cfg.addFlags(flags)
	declared := map[string]bool{}
	flags.VisitAll(func(f *pflag.Flag) { declared[f.Name] = true })
	for name := range maps.Keys(declared) {
		if _, ok := everySetting[name]; !ok {
			t.Errorf("setting %s is missing in this test", name)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  map[string]string
		file string
		want []string // all of these
	}{
		{"unknown key", nil, nil, "listen: \":1\"\nlisten-on: \":2\"", []string{"sluice.yaml:2:1: listen-on: unknown setting; known are ", "tls-client-ca"}},
		{"the file itself as a key", nil, nil, "config: x", []string{"sluice.yaml:1:1: config: unknown setting"}},
		{"bad duration", nil, nil, "grace: 30", []string{`sluice.yaml:1:8: grace: "30": want a duration such as 30s`}},
		{"bad value behind a flag", []string{"--grace", "1s"}, nil, "grace: 30", []string{"sluice.yaml:1:8: grace"}},
		{"list for a text", nil, nil, "listen: [a]", []string{"sluice.yaml:1:9: listen: want a text"}},
		{"null", nil, nil, "listen:", []string{"sluice.yaml:1:8: listen: want a text"}},
		{"list in a list", nil, nil, "resources: [[a]]", []string{"sluice.yaml:1:12: resources: want a list"}},
		{"said twice", nil, nil, "admin: :1\nadmin: :2", []string{"sluice.yaml:2:1: admin: said before in line 1"}},
		{"no mapping", nil, nil, "- a", []string{"sluice.yaml:1:1: want a mapping of settings"}},
		{"no YAML", nil, nil, "a: [", []string{"sluice.yaml: yaml: "}},
		{"two faults at once", nil, nil, "a: 1\nb: 2", []string{"sluice.yaml:1:1: a: ", "sluice.yaml:2:1: b: "}},
		{"bad variable", nil, map[string]string{"SLUICE_TRUSTED_HOPS": "two"}, "", []string{`environment variable SLUICE_TRUSTED_HOPS="two": want a whole number`}},
		{"file that was asked for and is not there", []string{"--config", "/nonexistent/sluice.yaml"}, nil, "", []string{"read configuration: open /nonexistent/sluice.yaml: no such file"}},

		{"address without port", []string{"--listen", "localhost"}, nil, "", []string{`listen "localhost": want host:port or :port`}},
		{"certificate without key", []string{"--tls-cert", "c"}, nil, "", []string{`tls-cert "c", tls-key "": want both or none`}},
		{"client authority without certificate", []string{"--tls-client-ca", "c"}, nil, "", []string{`tls-client-ca "c": needs tls-cert and tls-key`}},
		{"negative grace", []string{"--grace=-1s"}, nil, "", []string{"grace -1s"}},
		{"network", []string{"--trusted-proxies", "10.0.0.0/33"}, nil, "", []string{`trusted-proxies "10.0.0.0/33": want a network`}},
		{"PROXY from anybody", []string{"--proxy-protocol"}, nil, "", []string{"proxy-protocol: needs trusted-proxies"}},
		{"zone", []string{"--zone", "a b"}, nil, "", []string{`zone "a b": want a word of at most 63`}},
		{"gossip off loopback without a key", []string{"--gossip", ":7946"}, nil, "", []string{`gossip ":7946": reached from beyond this machine, and there is no gossip-key-file`, "make a key with sluice cluster keyring generate"}},
		{"peers, and no key", []string{"--join", "10.0.0.1"}, nil, "", []string{`gossip ":7946": reached from beyond this machine`, "join turned gossip on, at :7946"}},
		{"advertised off loopback without a key", []string{"--gossip", "127.0.0.1:0", "--gossip-advertise", "10.0.0.1"}, nil, "", []string{`gossip-advertise "10.0.0.1": reached from beyond this machine`}},
		{"advertised by name", []string{"--gossip", "127.0.0.1:0", "--gossip-advertise", "a.example.com"}, nil, "", []string{`gossip-advertise "a.example.com": want one IP address`}},
		{"a peer's URL", []string{"--gossip", "127.0.0.1:0", "--join", "http://a"}, nil, "", []string{`join "http://a": want `}},
		{"label", []string{"--gossip", "127.0.0.1:0", "--gossip-label", "a b"}, nil, "", []string{`gossip-label "a b": want a word of at most 255`}},
		{"of gossip, and there is none", []string{"--gossip-key-file", "k", "--gossip-insecure"}, nil, "", []string{`gossip-key-file "k": needs gossip or join`, "gossip-insecure: needs gossip or join"}},
		{"hops", []string{"--trusted-hops=-1"}, nil, "", []string{"trusted-hops -1"}},
		{"log format", []string{"--log-format", "xml"}, nil, "", []string{`log-format "xml": want text or json`}},
		{"everything at once", []string{"--listen", "a", "--admin", "b", "--trusted-hops=-1"}, nil, "", []string{`listen "a"`, `admin "b"`, "trusted-hops"}},
	}
	for _, test := range tests {
		_, err := parse(t, test.args, test.env, test.file)
		if err == nil {
			t.Errorf("%s: accepted", test.name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q, want %q in it", test.name, err, want)
			}
		}
	}
}

func TestConfigFileMayBeEmpty(t *testing.T) {
	if _, err := parse(t, nil, nil, "# nothing yet\n"); err != nil {
		t.Error(err)
	}
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
		text string
	}{
		{"done", nil, 0, ""},
		{"failed", errors.New("listen: no"), 1, "sluice: listen: no\n"},
		{"usage", usageErrorf("unknown flag"), 2, "sluice: unknown flag\n"},
		{"usage inside", errors.Join(usageErrorf("unknown flag")), 2, "sluice: unknown flag\n"},
	}
	for _, test := range tests {
		var stderr strings.Builder
		if got := exitCode(test.err, &stderr); got != test.want || stderr.String() != test.text {
			t.Errorf("%s: %d and %q, want %d and %q", test.name, got, stderr.String(), test.want, test.text)
		}
	}
}
