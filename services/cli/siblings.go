package cli

import (
	"github.com/spf13/cobra"

	"github.com/nearside/nearside/services/demo"
	"github.com/nearside/nearside/services/node"
	"github.com/nearside/nearside/services/shop"
	"github.com/nearside/nearside/services/wan"
)

// siblingCommands returns the commands of the other packages of this module (node, demo,
// shop, wan). They carry their own flags and read their own environment; see addSibling.
func siblingCommands() []*cobra.Command {
	return append(node.Commands(Version), demo.Command(), shop.Command(), wan.Command())
}
