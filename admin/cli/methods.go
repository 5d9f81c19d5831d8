package cli

import (
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) methodsCommand() *cobra.Command {
	var namespace, of, route string
	var kind routeKind
	cmd := &cobra.Command{
		Use:   "methods",
		Short: "List the methods that backends have",
		Long: `List the methods that backends have, how they are called with HTTP, and which
backends have them. Backends that have not told yet are asked, by reflection.`,
		Example: "  sluice methods\n  sluice methods --backend cart-v1\n  sluice methods --route cart",
		Args:    wants(0, 0),
	}
	output := p.addFormat(cmd, true)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.Flags().StringVar(&of, "backend", "", "only of the backend of this `NAME`")
	cmd.Flags().StringVar(&route, "route", "", "only what the route of this `NAME` leads to")
	kind.addFlag(cmd)
	p.complete(cmd, "backend", p.completeFlag(&namespace, backend))
	p.complete(cmd, "route", p.completeFlag(&namespace, grpcRoute, httpRoute))
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		request := &adminv1.ListMethodsRequest{Learn: true}
		if of != "" {
			ref, err := parseName(backend, namespace, of)
			if err != nil {
				return err
			}
			request.Backend = refKey(ref)
		}
		if route != "" {
			var err error
			if request.Route, err = kind.parse(namespace, route); err != nil {
				return err
			}
		}
		all, err := ask(c.ctx, c.schemas.ListMethods, request)
		if err != nil {
			return err
		}
		return c.printAllMethods(output, all)
	})
	return cmd
}

// completeFlag completes a flag whose value is an object of one of these kinds.
func (p *program) completeFlag(namespace *string, kinds ...string) completer {
	return func(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return p.completeKinds(namespace, kinds...)(cmd, nil, toComplete)
	}
}

func (c *call) printAllMethods(output *format, all *adminv1.ListMethodsResponse) error {
	switch output.is {
	case asJSON, asYAML:
		return c.structured(output, all)
	case asName:
		return c.printMethodNames(all.GetMethods())
	}
	for _, s := range all.GetProblems() {
		of := "every backend"
		if s.GetBackend() != "" {
			of = shortKey(s.GetBackend())
		}
		c.note("warning: %s", printable(of+": "+sourceText(s)+": "+s.GetProblem()))
	}
	if len(all.GetMethods()) == 0 {
		c.note("no methods are known; sluice schema list says why")
		return nil
	}
	return c.printMethods(all.GetMethods(), true)
}

func (c *call) printMethodNames(methods []*adminv1.Method) error {
	var page strings.Builder
	for _, m := range methods {
		page.WriteString(printable(m.GetName()) + "\n")
	}
	_, err := c.out.Write([]byte(page.String()))
	return err
}

func (c *call) printMethods(methods []*adminv1.Method, withBackends bool) error {
	return methodsTable(methods, withBackends).write(c.out, "")
}

func methodsTable(methods []*adminv1.Method, withBackends bool) *table {
	header := []string{"METHOD", "KIND", "HTTP"}
	if withBackends {
		header = append(header, "BACKENDS")
	}
	t := newTable(header...)
	for _, m := range methods {
		row := []string{m.GetName(), methodKind(m), bindingsText(m)}
		if withBackends {
			var names []string
			for _, key := range m.GetBackends() {
				names = append(names, shortKey(key))
			}
			row = append(row, brief(names, ", "))
		}
		t.add(row...)
	}
	return t
}

// methodKind is which of the four kinds of RPC a method is.
func methodKind(m *adminv1.Method) string {
	switch {
	case m.GetClientStreaming() && m.GetServerStreaming():
		return "both stream"
	case m.GetClientStreaming():
		return "client streams"
	case m.GetServerStreaming():
		return "server streams"
	}
	return "unary"
}

// bindingsText is "GET /v1/carts/{id}; POST /v1/carts:get".
func bindingsText(m *adminv1.Method) string {
	var all []string
	for _, b := range m.GetBindings() {
		all = append(all, b.GetVerb()+" "+b.GetPath())
	}
	return strings.Join(all, "; ")
}

func (p *program) openAPICommand() *cobra.Command {
	var namespace string
	var kind routeKind
	cmd := &cobra.Command{
		Use:   "openapi ROUTE",
		Short: "Describe a route's methods in OpenAPI 3.1",
		Long: `Write an OpenAPI 3.1 document about how the methods that a route leads to are called
with HTTP and JSON. Backends that have not told of their methods yet are asked, by
reflection. ROUTE is a GRPCRoute or an HTTPRoute: of that, what its rules take.`,
		Example: "  sluice openapi cart > cart.json\n  sluice openapi cart -o yaml",
		Args:    wants(1, 1),
	}
	output := &format{is: asJSON, allowed: []string{asJSON, asYAML}}
	cmd.Flags().VarP(output, "output", "o", "`format`: "+list(output.allowed, "or"))
	p.complete(cmd, "output", fixed(output.allowed...))
	kind.addFlag(cmd)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.ValidArgsFunction = p.completeKinds(&namespace, grpcRoute, httpRoute)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := kind.parse(namespace, args[0])
		if err != nil {
			return err
		}
		described, err := ask(c.ctx, c.schemas.GetOpenAPI, &adminv1.GetOpenAPIRequest{Route: ref})
		if err != nil {
			return err
		}
		if output.is == asJSON {
			_, err = c.out.Write([]byte(described.GetDocument()))
			return err
		}
		n, err := parseJSON(described.GetDocument())
		if err != nil {
			return err
		}
		return writeYAML(c.out, n)
	})
	return cmd
}
