package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// kind is a kind of object and what people call it.
type kind struct {
	name  string   // as in manifests
	short string   // as it is offered
	also  []string // in lower case, beside name, short and their plurals
}

// kinds in the order in which a manifest refers to others: what comes first may
// be deleted first.
var kinds = []kind{
	{name: registrationKind, short: "registration"},
	{name: "RPCPolicy", short: "policy", also: []string{"rpcpolicies", "policies"}},
	{name: "Schema", short: "schema", also: []string{"schemata"}},
	{name: "HTTPRoute", short: "httproute"},
	{name: "GRPCRoute", short: "route"},
	{name: "Backend", short: "backend"},
}

const (
	grpcRoute = "GRPCRoute"
	httpRoute = "HTTPRoute"
	backend   = "Backend"
	rpcPolicy = "RPCPolicy"

	schemaKind = "Schema"

	registrationKind = "Registration" // made by register, and by no manifest
)

// parseKind knows a kind by its name in any case, its plural, and its short name.
func parseKind(word string) (string, error) {
	lower := strings.ToLower(word)
	for _, k := range kinds {
		names := append([]string{strings.ToLower(k.name), k.short}, k.also...)
		if slices.Contains(names, lower) || slices.Contains(names, strings.TrimSuffix(lower, "s")) {
			return k.name, nil
		}
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.short)
	}
	slices.Sort(names)
	return "", usageErrorf("unknown kind %q, want %s", word, list(names, "or"))
}

// shortKind is what a user types for a kind.
func shortKind(name string) string {
	for _, k := range kinds {
		if k.name == name {
			return k.short
		}
	}
	return name
}

const defaultNamespace = "default"

// parseName reads NAME or NAMESPACE/NAME; namespace is that of --namespace.
func parseName(kind, namespace, word string) (*adminv1.Ref, error) {
	name := word
	if before, after, ok := strings.Cut(word, "/"); ok {
		if namespace != "" && namespace != before {
			return nil, usageErrorf("%s %q: not in --namespace %s", shortKind(kind), word, namespace)
		}
		namespace, name = before, after
	}
	if name == "" || strings.Contains(name, "/") || strings.Contains(word, "/") && namespace == "" {
		return nil, usageErrorf("%s %q: want NAME or NAMESPACE/NAME", shortKind(kind), word)
	}
	if namespace == "" {
		namespace = defaultNamespace
	}
	return &adminv1.Ref{Kind: kind, Namespace: namespace, Name: name}, nil
}

// parseRef reads KIND NAME.
func parseRef(namespace string, args []string) (*adminv1.Ref, error) {
	kind, err := parseKind(args[0])
	if err != nil {
		return nil, err
	}
	return parseName(kind, namespace, args[1])
}

// refKey is "namespace/name".
func refKey(ref *adminv1.Ref) string {
	namespace := ref.GetNamespace()
	if namespace == "" {
		namespace = defaultNamespace
	}
	return namespace + "/" + ref.GetName()
}

// refID is "Kind namespace/name", as the server and the log have it.
func refID(ref *adminv1.Ref) string { return ref.GetKind() + " " + refKey(ref) }

// refArgs is how a user names the object on the command line.
func refArgs(ref *adminv1.Ref) string {
	if refKey(ref) == defaultNamespace+"/"+ref.GetName() {
		return shortKind(ref.GetKind()) + " " + ref.GetName()
	}
	return shortKind(ref.GetKind()) + " " + refKey(ref)
}

// splitRule reads ROUTE, ROUTE/RULE or NAMESPACE/ROUTE/RULE.
func splitRule(namespace, word string) (route *adminv1.Ref, rule string, err error) {
	parts := strings.Split(word, "/")
	if slices.Contains(parts, "") || len(parts) > 3 {
		return nil, "", usageErrorf("route %q: want ROUTE, ROUTE/RULE or NAMESPACE/ROUTE/RULE", word)
	}
	if len(parts) > 1 {
		rule = parts[len(parts)-1]
		parts = parts[:len(parts)-1]
	}
	route, err = parseName(grpcRoute, namespace, strings.Join(parts, "/"))
	return route, rule, err
}

// routeKind is the --kind of commands that take a route of either kind.
type routeKind struct{ word string }

func (k *routeKind) addFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.word, "kind", "", "`kind` of the route, route or httproute, where there are both of that name")
}

// set leaves the kind of a reference to the server, which knows what is there, unless
// the user has said it.
func (k *routeKind) set(ref *adminv1.Ref) error {
	ref.Kind = ""
	if k.word == "" {
		return nil
	}
	name, err := parseKind(k.word)
	if err != nil || name != grpcRoute && name != httpRoute {
		return usageErrorf("--kind %q: want route or httproute", k.word)
	}
	ref.Kind = name
	return nil
}

// parse reads the name of a route.
func (k *routeKind) parse(namespace, word string) (*adminv1.Ref, error) {
	ref, err := parseName(grpcRoute, namespace, word)
	if err != nil {
		return nil, err
	}
	return ref, k.set(ref)
}
