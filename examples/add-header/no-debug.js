// A transform of the AssemblyScript compiler: leaves the SDK's debug lines out. The SDK builds some eight of them for each
// request, with the ids of all of its contexts, whether they are logged or not; that took more time than all else.
const { Transform } = require("assemblyscript/cli/transform");
const { NodeKind } = require("assemblyscript");

const isDebugLine = (statement) => {
  const call = statement.kind === NodeKind.EXPRESSION && statement.expression;
  return (
    call.kind === NodeKind.CALL &&
    call.expression.text === "log" &&
    call.args.length === 2 &&
    call.args[0].kind === NodeKind.PROPERTYACCESS &&
    call.args[0].property.text === "debug"
  );
};

// Declarations and statements hang below each other in these.
const BELOW = ["statements", "members", "body", "ifTrue", "ifFalse", "statement"];

const strip = (node) => {
  for (const name of BELOW) {
    const below = node[name];
    if (Array.isArray(below)) {
      node[name] = below.filter((child) => !isDebugLine(child));
      node[name].forEach(strip);
    } else if (below && typeof below === "object") {
      strip(below);
    }
  }
};

module.exports = class extends Transform {
  afterParse(parser) {
    const sources = parser.sources || parser.program.sources;
    sources.filter((source) => source.normalizedPath.includes("proxy-runtime")).forEach(strip);
  }
};
