package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// A setting that no flag gives comes from the environment, else from the
// configuration file. Both go through the flag's own parser, so that a value
// means the same wherever it stands.

// resolve fills in the settings that the command line left open. The file of
// --config must exist only when it was asked for by name.
func resolve(flags *pflag.FlagSet, getenv func(string) string) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		if err := fromEnv(f, getenv); err != nil {
			errs = append(errs, err)
		}
	})
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	file := flags.Lookup("config")
	data, err := os.ReadFile(file.Value.String())
	if errors.Is(err, fs.ErrNotExist) && !file.Changed {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return fromFile(flags, file.Value.String(), data)
}

// fromEnv sets f from its variable, unless the command line has set it.
func fromEnv(f *pflag.Flag, getenv func(string) string) error {
	name := envName(f.Name)
	value := getenv(name)
	if f.Changed || value == "" || f.Name == "help" {
		return nil
	}
	if err := f.Value.Set(value); err != nil {
		return fmt.Errorf("environment variable %s=%q: want %s", name, value, wanted(f))
	}
	f.Changed = true
	return nil
}

func envName(flag string) string {
	return "SLUICE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromFile sets what neither the command line nor the environment has set,
// and reports every fault in the file, also in what it does not set.
func fromFile(flags *pflag.FlagSet, file string, data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	top := doc.Content[0]
	fault := func(n *yaml.Node, format string, args ...any) error {
		return fmt.Errorf("%s:%d:%d: %w", file, n.Line, n.Column, fmt.Errorf(format, args...))
	}
	if top.Kind != yaml.MappingNode {
		return fault(top, "want a mapping of settings, such as listen: \":8080\"")
	}
	var errs []error
	said := map[string]int{} // key → line
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		f := flags.Lookup(key.Value)
		switch line, again := said[key.Value]; {
		case f == nil || !isSetting(f):
			errs = append(errs, fault(key, "%s: unknown setting; known are %s", key.Value, settingNames(flags)))
		case again:
			errs = append(errs, fault(key, "%s: said before in line %d", key.Value, line))
		default:
			if err := fromNode(f, value); err != nil {
				errs = append(errs, fault(value, "%s: %w", key.Value, err))
			}
		}
		said[key.Value] = key.Line
	}
	return errors.Join(errs...)
}

// fromNode sets f from a scalar, or from a list where f takes one. A flag
// that is set already only has its value in the file checked.
func fromNode(f *pflag.Flag, n *yaml.Node) error {
	var values []string
	switch _, list := f.Value.(pflag.SliceValue); {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		values = []string{n.Value}
	case n.Kind == yaml.SequenceNode && list:
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return fmt.Errorf("want %s", wanted(f))
			}
			values = append(values, item.Value)
		}
	default:
		return fmt.Errorf("want %s", wanted(f))
	}
	if f.Changed {
		return check(f, values)
	}
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	if err := f.Value.Set(values[0]); err != nil {
		return fmt.Errorf("%q: want %s", values[0], wanted(f))
	}
	return nil
}

// check tries values on f and puts back what f held.
func check(f *pflag.Flag, values []string) error {
	if _, ok := f.Value.(pflag.SliceValue); ok {
		return nil // any text will do
	}
	held := f.Value.String()
	defer f.Value.Set(held)
	if err := f.Value.Set(values[0]); err != nil {
		return fmt.Errorf("%q: want %s", values[0], wanted(f))
	}
	return nil
}

// isSetting says whether a flag may stand in the configuration file: all but
// the file itself and help.
func isSetting(f *pflag.Flag) bool {
	return f.Name != "config" && f.Name != "help"
}

func settingNames(flags *pflag.FlagSet) string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if isSetting(f) {
			names = append(names, f.Name)
		}
	})
	return strings.Join(names, ", ")
}

// wanted says what a setting takes, for an error.
func wanted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 30s"
	case "int":
		return "a whole number"
	case "float64":
		return "a number"
	case "stringSlice":
		return "a list"
	}
	return "a text"
}
