package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module is the path that every package of ours begins with.
const module = "sluice"

// mayImport is which of our packages each package may import; a name stands
// for itself and, with /..., for everything below it. The root may import
// everything. A package that is not listed may not exist.
var mayImport = map[string][]string{
	"store":      {"store/disk"},
	"store/disk": nil,

	"cluster":    {"cluster/v1", "store"},
	"cluster/v1": nil,

	"gateway/wire":    nil,
	"gateway/balance": nil,
	"gateway/h2":      {"gateway/wire"},
	"gateway/listen":  {"gateway/h2"},
	"gateway/route":   {"store"},
	"gateway/schema":  {"store"},
	"gateway/web":     {"gateway/wire", "gateway/schema"},
	"gateway/rest":    {"gateway/wire", "gateway/schema"},
	"gateway/observe": {"gateway/wire", "store"},
	"gateway/policy":  {"gateway/wire", "store"},
	"gateway/upstream": {
		"gateway/h2", "gateway/balance", "gateway/wire", "store",
	},
	"gateway": {"gateway/...", "store"},

	// What attacks the gateway sees of it what a node does.
	"gateway/hostile": {"gateway", "gateway/schema", "store"},

	// admin sees the gateway only through interfaces of its own.
	"admin":     {"admin/v1", "store"},
	"admin/v1":  nil,
	"admin/cli": {"admin/v1", "store"},

	// What plays the other side of the wire must not lean on ours.
	"demo":          {"demo/..."},
	"demo/shop/v1":  nil,
	"bench":         {"bench/..."},
	"bench/limits":  nil,
	"bench/echo/v1": nil,
	"faults":        nil,
}

func TestPackagesImportOnlyDownwards(t *testing.T) {
	found := packages(t)
	for _, pkg := range slices.Sorted(maps.Keys(found)) {
		allowed, listed := mayImport[pkg]
		if pkg == "." {
			continue
		}
		if !listed {
			t.Errorf("package %s: not in the table of import directions", pkg)
			continue
		}
		for _, imported := range slices.Sorted(maps.Keys(found[pkg])) {
			if imported != pkg && !allows(allowed, imported) {
				t.Errorf("%s imports %s, allowed are %v (%s)", pkg, imported, allowed, found[pkg][imported])
			}
		}
	}
}

func TestAllowsReadsTheTable(t *testing.T) {
	tests := []struct {
		name     string
		allowed  []string
		imported string
		want     bool
	}{
		{"itself named", []string{"store"}, "store", true},
		{"nothing allowed", nil, "store", false},
		{"below a tree", []string{"gateway/..."}, "gateway/h2", true},
		{"beside a tree", []string{"gateway/..."}, "gatewayish", false},
		{"a name is no tree", []string{"gateway"}, "gateway/h2", false},
	}
	for _, test := range tests {
		if got := allows(test.allowed, test.imported); got != test.want {
			t.Errorf("%s: allows(%v, %q) = %v, want %v", test.name, test.allowed, test.imported, got, test.want)
		}
	}
}

func allows(allowed []string, imported string) bool {
	return slices.ContainsFunc(allowed, func(entry string) bool {
		if tree, ok := strings.CutSuffix(entry, "..."); ok {
			return strings.HasPrefix(imported, tree)
		}
		return entry == imported
	})
}

// packages returns, for each folder with Go files, which of our packages its
// files import, tests included, and one file that does. Folders that are
// modules of their own are not ours to judge.
func packages(t *testing.T) map[string]map[string]string {
	found := map[string]map[string]string{}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipFolder(name)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		pkg := path.Dir(filepath.ToSlash(name))
		if found[pkg] == nil {
			found[pkg] = map[string]string{}
		}
		return addImports(found[pkg], name)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 5 {
		t.Fatalf("found packages %v: this is not the whole tree", slices.Sorted(maps.Keys(found)))
	}
	return found
}

func skipFolder(name string) error {
	base := filepath.Base(name)
	if name != "." && strings.HasPrefix(base, ".") || base == "testdata" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); name != "." && err == nil {
		return fs.SkipDir
	}
	return nil
}

func addImports(imports map[string]string, file string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	for _, spec := range parsed.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		if imported == module {
			imports["."] = file
		}
		if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
			imports[ours] = file
		}
	}
	return nil
}
