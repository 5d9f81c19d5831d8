package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sluice/store"
)

// Every field of our own kinds has a row in a table of resources.md: it is named there
// by its path, or within the row of what it is a field of.
func TestResourcesListsEveryField(t *testing.T) {
	text, err := os.ReadFile("docs/resources.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][2][]string // the names in the first cell, and in the whole row
	words := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| `") {
			var names [2][]string
			for i, cell := range []string{first, line} {
				for _, word := range words.FindAllStringSubmatch(cell, -1) {
					names[i] = append(names[i], strings.NewReplacer("[]", "").Replace(word[1]))
				}
			}
			rows = append(rows, names)
		}
	}
	// documented looks for the row of the path, or of the field around it, that names it.
	documented := func(path string) bool {
		around, name := "", path
		if at := strings.LastIndexByte(path, '.'); at >= 0 {
			around, name = path[:at], path[at+1:]
		}
		named := regexp.MustCompile(`(^|[^\w])` + regexp.QuoteMeta(name) + `($|[^\w])`)
		for _, row := range rows {
			first := row[0][0]
			switch {
			case first == path:
				return true
			case around == "":
			case first == around || strings.HasPrefix(first, around+"."):
				for _, word := range row[1] {
					if named.MatchString(word) {
						return true
					}
				}
			}
		}
		return false
	}
	for kind, spec := range map[string]reflect.Type{
		store.BackendKind: reflect.TypeFor[store.BackendSpec](), store.RPCPolicyKind: reflect.TypeFor[store.RPCPolicySpec](), store.SchemaKind: reflect.TypeFor[store.SchemaSpec](),
	} {
		for _, path := range leaves(spec, "") {
			if !documented(path) {
				t.Errorf("%s: no row tells of spec.%s", kind, path)
			}
		}
	}
}

// leaves are the paths of the fields that have none themselves, as a manifest has them.
func leaves(of reflect.Type, path string) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.NumField() == 0 {
		return []string{path}
	}
	var all []string
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		all = append(all, leaves(of.Field(i).Type, strings.TrimPrefix(path+"."+name, "."))...)
	}
	return all
}
